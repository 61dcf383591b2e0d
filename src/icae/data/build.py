"""Build training data: corpora to a mixture of clean, distinct documents as token shards.

Three stages. (1) Every input file is read once: clean, cut out overlaps with the evaluation
sets, tokenize, hash (`icae.data.gathering`). (2) Duplicates are found over all documents, in the
order of the configuration, and documents are split and chosen for the shares asked for
(`icae.data.mixture`). (3) The tokens of the chosen documents are packed.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icae.data.build_config import BuildConfig, identify
from icae.data.build_report import BuildReport, make_report, markdown
from icae.data.contamination import NGRAM_WORDS, NgramIndex, evaluation_texts
from icae.data.gathering import Gathered, gather
from icae.data.mixture import make_plan
from icae.data.rows import write_whole
from icae.data.shards import ShardSet, ShardWriter, TokenizerLike
from icae.errors import InputError

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]


def build(
    config: BuildConfig,
    tokenizer: TokenizerLike,
    folder: Path | str,
    *,
    tokenizer_hash: str,
    on_progress: Progress = lambda text: None,
) -> BuildReport:
    """Build the data into a new or empty folder.

    Writes ``train/`` and ``validation/`` (token shards), ``report.md`` and, last, ``report.json``.
    ``on_progress`` is called with a line on what is being done.

    Raises:
        InputError: If an input cannot be read, the folder is in use, or a source has no document
            left.
        MissingDependencyError: If a package of the extra ``data`` is not installed.
    """
    folder = Path(folder)
    _require_new(folder)
    identity = identify(config, tokenizer_hash=tokenizer_hash)
    seconds: dict[str, float] = {}
    on_progress("Reading the evaluation sets")
    with _timed(seconds, "evaluation n-grams"):
        index = NgramIndex(evaluation_texts(config.contamination.against), n=NGRAM_WORDS)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        with _timed(seconds, "documents"):
            found = gather(
                config,
                tokenizer,
                index,
                identity.inputs,
                Path(work) / "tokens.bin",
                on_progress=on_progress,
            )
        on_progress("Finding duplicates")
        with _timed(seconds, "duplicates"):
            plan = make_plan(config, found)

        def pack(side: str, copies: NDArray[np.int64]) -> ShardSet | None:
            if not copies.any():
                return None
            with ShardWriter(
                folder / side,
                vocab_size=len(tokenizer),
                tokenizer_hash=tokenizer_hash,
                created_by="icae data build",
            ) as writer:
                for source, ids in _chosen_parts(config, found, copies):
                    on_progress(f"Packing {side}: {source}")
                    writer.add(ids, source=source)
            return ShardSet.open(folder / side)

        with _timed(seconds, "packing"):
            shards = {
                "train": pack("train", plan.copies),
                "validation": pack("validation", plan.validation.astype(np.int64)),
            }
    report = make_report(
        config, identity, found, plan, shards, evaluation_ngrams=len(index), seconds=seconds
    )
    write_whole(folder / "report.md", markdown(report))
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "report.json", text)
    logger.info("Built %d training tokens in %s.", report.tokens, folder)
    return report


def _chosen_parts(
    config: BuildConfig, found: Gathered, copies: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Source and token ids of every part to be packed, source by source, round by round."""
    for number, source in enumerate(config.sources):
        own = np.where(found.sources == number, copies, 0)
        for turn in range(int(own.max(initial=0))):
            for document in np.flatnonzero(own > turn).tolist():
                for ids in found.parts(document):
                    yield source.name, ids


def _require_new(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            "The output folder is in use.",
            got=str(folder),
            expected="a new or empty folder",
            fix="choose another folder, or remove that one to start over",
        )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
