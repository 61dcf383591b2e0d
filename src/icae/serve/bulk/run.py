"""A bulk run from its input to a folder of parts: what is done stays done."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icae.config.parsing import check
from icae.config.spans import check_ratio
from icae.errors import InputError, WorkerError
from icae.memory import memory_bytes
from icae.serve.bulk.documents import (
    Block,
    BulkDocument,
    Rejected,
    cut_blocks,
    list_files,
    read_block,
    reason_of,
    require_unique_ids,
)
from icae.serve.bulk.folder import BulkFolder

if TYPE_CHECKING:
    from icae.engine import Engine

VERSION = 1

OnProgress = Callable[[int, int], None]
"""Called with (documents done, documents in all)."""

log = logging.getLogger(__name__)


def open_engine(
    *,
    adapter: str | None = None,
    base: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    threads: int = 1,
) -> Engine:
    """Load the same engine in every worker; as `icae.engine.load`.

    On the CPU threads the order of sums, and with it the last bits of slots, may depend.
    """
    import torch

    from icae import engine

    torch.set_num_threads(threads)
    return engine.load(adapter, base=base, device=device, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """What a run makes of what; travels to every worker.

    Attributes:
        source: A file, or a folder of files.
        output: Folder of the result.
        load: Loads the engine; called once in each worker, to which it travels.
        ratio: Context tokens per slot.
        verify: Whether the fidelity of each span is measured.
        keep_source: Whether the memories keep their text.
        block_size: Documents of a block.
        maker: Hashes of adapter and base, and precision: what the memories depend on.

    Raises:
        ConfigError: If block size or ratio is out of range.
    """

    source: Path
    output: Path
    load: Callable[[], Engine]
    ratio: float
    verify: bool
    keep_source: bool
    block_size: int
    maker: Mapping[str, str]

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        check(self.block_size >= 1, "The block size is out of range.", self.block_size, ">= 1")


Runner = Callable[[BulkJob, Sequence[Block]], Iterator[int]]
"""Compresses blocks, here (`run_here`) or by several processes (`icae.serve.bulk.processes`), and
gives the number of each once it is written."""


class BlockWorker:
    """Compresses blocks one after the other, the model loaded once."""

    def __init__(self, job: BulkJob) -> None:
        self._job, self._engine = job, job.load()

    def run(self, block: Block) -> int:
        """Compress a block and write its part, unless it is there; gives its number.

        If a document of it fails, each is compressed by itself, and that one is rejected.
        """
        folder = BulkFolder(self._job.output)
        if folder.has(block.index):
            return block.index
        documents, rejected = read_block(block)
        rows: list[Mapping[str, Any]] = []
        try:
            rows = self._rows(documents)
        except Exception as error:
            log.info("a block is compressed document by document: %s", reason_of(error))
            for document in documents:
                try:
                    rows += self._rows([document])
                except Exception as own:
                    reason = reason_of(own)
                    rejected.append(Rejected(id=document.id, place=document.place, reason=reason))
        folder.write(block.index, rows, rejected)
        return block.index

    def _rows(self, documents: Sequence[BulkDocument]) -> list[Mapping[str, Any]]:
        if not documents:
            return []
        memories = self._engine.compress_many(
            [document.text for document in documents],
            ratio=self._job.ratio,
            names=[document.id for document in documents],
            verify=self._job.verify,
        )
        return [
            {
                "id": document.id,
                "place": document.place,
                "sha256": hashlib.sha256(document.text.encode("utf-8")).hexdigest(),
                "tokens": memory.tokens,
                "slots": memory.slot_count,
                "fidelity": memory.fidelity,
                "memory": memory_bytes(
                    memory if self._job.keep_source else memory.without_source()
                ),
            }
            for document, memory in zip(documents, memories, strict=True)
        ]


def run_here(job: BulkJob, blocks: Sequence[Block]) -> Iterator[int]:
    """Compress blocks in this process, one after the other; see `Runner`."""
    worker = BlockWorker(job)
    for block in blocks:
        yield worker.run(block)


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

    Raises:
        InputError: If input or output cannot be used, an id stands for two documents, or no
            document could be compressed.
        ResultConflictError: If the output folder holds another run.
        WorkerError: If blocks are missing at the end; the others are there.
    """
    begin = time.perf_counter()
    files = list_files(job.source)
    blocks = cut_blocks(files, size=job.block_size)
    require_unique_ids(blocks)
    folder = BulkFolder(job.output)
    folder.open(_manifest(job, files, blocks))
    missing = [block for block in blocks if not folder.has(block.index)]
    total = sum(block.documents for block in blocks)
    done = total - sum(block.documents for block in missing)
    on_progress(done, total)
    if missing:
        for index in runner(job, missing):
            done += blocks[index].documents
            on_progress(done, total)
    _require_all(folder, blocks)
    documents, tokens, slots = folder.totals()
    rejected = folder.rejected()
    if rejected and not documents:
        raise InputError(
            "No document could be compressed.",
            got=f"{len(rejected)} rejected, the first, {rejected[0].place}: {rejected[0].reason}",
            fix=f"See {job.output}/rejected; mend the input and name another folder.",
        )
    return BulkSummary(
        documents=documents,
        rejected=len(rejected),
        blocks=len(blocks),
        resumed=len(blocks) - len(missing),
        tokens=tokens,
        slots=slots,
        seconds=time.perf_counter() - begin,
    )


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
        "ratio": job.ratio,
        "fidelity": job.verify,
        "source": job.keep_source,
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
