"""A bulk run from its input to a folder of parts: what is done stays done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from icae.config.parsing import check
from icae.config.spans import check_ratio
from icae.errors import InputError, WorkerError
from icae.serve.bulk.compress import BlockWork
from icae.serve.bulk.documents import Block, cut_blocks, list_files
from icae.serve.bulk.output import BulkFolder

VERSION = 1

OnProgress = Callable[[int, int], None]
"""Called with (documents done, documents in all)."""


class Runner(Protocol):
    """Compresses blocks somewhere: `icae.serve.bulk.run_here`, `icae.serve.bulk.ray.RayRunner`."""

    def __call__(self, work: BlockWork, blocks: Sequence[Block]) -> Iterator[int]:
        """Compress blocks; yields the number of each once it is written."""
        ...


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """What a run makes of what.

    Attributes:
        inputs: Files and folders.
        work: How blocks are compressed, and where they go.
        block_size: Documents of a block.
        maker: Hashes of adapter and base, and precision: what the memories depend on.

    Raises:
        ConfigError: If block size or ratio is out of range.
    """

    inputs: tuple[Path, ...]
    work: BlockWork
    block_size: int
    maker: dict[str, str]

    def __post_init__(self) -> None:
        check_ratio(self.work.ratio)
        check(self.block_size >= 1, "The block size is out of range.", self.block_size, ">= 1")


@dataclass(frozen=True, kw_only=True)
class BulkSummary:
    """What the output folder holds after a run.

    Attributes:
        documents: Memories in it.
        rejected: Documents that could not be compressed.
        blocks: Blocks in it.
        resumed: Blocks that were there before this run.
        tokens: Tokens of all memories.
        slots: Slots of all memories.
        seconds: Wall time of this run.
    """

    documents: int
    rejected: int
    blocks: int
    resumed: int
    tokens: int
    slots: int
    seconds: float


def run_bulk(
    job: BulkJob, runner: Runner, *, on_progress: OnProgress = lambda done, total: None
) -> BulkSummary:
    """Compress every document of the input that is not compressed yet.

    Args:
        job: The run.
        runner: Where it runs.
        on_progress: Called with (documents done, documents in all).

    Raises:
        InputError: If input or output cannot be used, or no document could be compressed.
        ResultConflictError: If the output folder holds another run.
        WorkerError: If blocks are missing at the end; the others are there.
    """
    begin = time.perf_counter()
    files = list_files(job.inputs)
    blocks = cut_blocks(files, size=job.block_size)
    folder = BulkFolder(job.work.output)
    folder.open(_manifest(job, files, blocks))
    missing = [block for block in blocks if not folder.has(block.index)]
    resumed = len(blocks) - len(missing)
    total = sum(block.documents for block in blocks)
    done = total - sum(block.documents for block in missing)
    on_progress(done, total)
    if missing:
        for index in runner(job.work, missing):
            done += blocks[index].documents
            on_progress(done, total)
    _require_all(folder, blocks)
    summary = _summary(folder, blocks, resumed=resumed, seconds=time.perf_counter() - begin)
    if summary.rejected and not summary.documents:
        first = folder.rejected()[0]
        raise InputError(
            "No document could be compressed.",
            got=f"{summary.rejected} rejected, the first, {first.place}: {first.reason}",
            fix=f"See {job.work.output}/rejected; mend the input and name another folder.",
        )
    return summary


def _manifest(
    job: BulkJob, files: Sequence[tuple[Path, str]], blocks: Sequence[Block]
) -> dict[str, Any]:
    """What has to stay the same for a run to go on."""
    return {
        "format": "icae-bulk",
        "version": VERSION,
        "input": [[name, path.stat().st_size] for path, name in files],
        "blocks": len(blocks),
        "block_size": job.block_size,
        "ratio": job.work.ratio,
        "fidelity": job.work.verify,
        "source": job.work.keep_source,
        **job.maker,
    }


def _require_all(folder: BulkFolder, blocks: Sequence[Block]) -> None:
    lost = [block for block in blocks if not folder.has(block.index)]
    if lost:
        first = lost[0].pieces[0]
        raise WorkerError(
            "Some blocks could not be compressed; the others are there.",
            got=f"{len(lost)} of {len(blocks)} blocks missing, the first at {first.name}, "
            f"document {first.first + 1}",
            fix="Run the command again: only these are done. With --workers 0 this process shows "
            "what happens; a smaller --block narrows it down.",
        )


def _summary(
    folder: BulkFolder, blocks: Sequence[Block], *, resumed: int, seconds: float
) -> BulkSummary:
    documents, tokens, slots = folder.totals()
    return BulkSummary(
        documents=documents,
        rejected=len(folder.rejected()),
        blocks=len(blocks),
        resumed=resumed,
        tokens=tokens,
        slots=slots,
        seconds=seconds,
    )
