"""Build training data: corpora to a mixture of clean, distinct documents as token shards.

Three stages. (1) Every input file is read once, in chunks: clean, cut out overlaps with the
evaluation sets, tokenize, hash (`icae.data.chunks`). (2) Duplicates are found over all
chunks, in the order of the configuration, and documents are split and chosen for the shares
asked for (`icae.data.mixture`). (3) The tokens of the chosen documents are packed.

A build that was killed, by whatever, goes on when it is started again, and the shards come
out the same byte for byte. What it needs for that lies in ``work/`` in the output folder
until it is done. In memory are the keys and signatures of all documents, never their texts.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import filelock
import numpy as np
from numpy.typing import NDArray

from icae.config.parsing import from_dict
from icae.data.build_config import EVALUATION, BuildConfig, Identity, identify
from icae.data.build_report import BuildReport, make_report, markdown
from icae.data.chunks import Chunk, Tools, read_chunks, write_chunks
from icae.data.contamination import NgramIndex, evaluation_texts
from icae.data.corpus import read_source
from icae.data.dedup import Sketcher
from icae.data.mixture import Plan, make_plan
from icae.data.rows import write_whole
from icae.data.shards import ShardSet, ShardWriter, TokenizerLike
from icae.errors import ConfigError, InputError

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]
T = TypeVar("T")

_SIDES = ("train", "validation")
_CREATED_BY = "icae data build"


def build(
    config: BuildConfig,
    tokenizer: TokenizerLike,
    folder: Path | str,
    *,
    tokenizer_hash: str,
    on_progress: Progress = lambda text: None,
) -> BuildReport:
    """Build the data, or go on with a build that was stopped.

    Writes ``train/`` and ``validation/`` (token shards), ``report.json`` and ``report.md``.
    A finished build is left as it is and its report returned. The folder is new, empty, or
    that of the same build; ``on_progress`` is called with a line on what is being done.

    Raises:
        InputError: If an input cannot be read, the folder is that of something else or of
            a build with other settings or inputs, or a source has no document left.
        MissingDependencyError: If a package of the extra ``data`` is not installed.
    """
    folder = Path(folder)
    sketcher = Sketcher(config.dedup, seed=config.seed)
    identity = identify(config, tokenizer_hash=tokenizer_hash)
    report = _finished_report(folder, identity)
    if report is None:
        with _claimed(folder, identity) as work:
            report = _build_in(folder, work, config, identity, tokenizer, sketcher, on_progress)
            write_whole(folder / "report.md", markdown(report))
            text = json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n"
            write_whole(folder / "report.json", text)  # last: it marks the build as complete
            shutil.rmtree(work, ignore_errors=True)
        logger.info("Built %d training tokens in %s.", report.tokens, folder)
    return report


def _build_in(
    folder: Path,
    work: Path,
    config: BuildConfig,
    identity: Identity,
    tokenizer: TokenizerLike,
    sketcher: Sketcher,
    on_progress: Progress,
) -> BuildReport:
    """Do the three stages, each as far as it is not done yet."""
    seconds: dict[str, float] = {}
    names = [source.name for source in config.sources]
    chunks: list[Chunk] = []
    owners: list[int] = []
    on_progress("Reading the evaluation sets")
    with _timed(seconds, "evaluation n-grams"):
        texts = evaluation_texts(config.contamination.against)
        index = NgramIndex(texts, n=config.contamination.ngram_words)
    tools = Tools(config=config, tokenizer=tokenizer, sketcher=sketcher, index=index)
    for number, file in enumerate(identity.inputs):
        if file.role == EVALUATION:
            continue
        prefix = work / "chunks" / f"{number:04d}"
        for seen in write_chunks(read_source(file.path), prefix, tools):
            on_progress(f"Reading {Path(file.path).name}: {seen:,} documents")
        found = read_chunks(prefix)
        chunks += found
        owners += [names.index(file.role)] * len(found)
    on_progress("Finding duplicates")
    with _timed(seconds, "duplicates"):
        plan = make_plan(config, chunks, owners)
    with _timed(seconds, "packing"):
        shards = {
            side: _pack_side(side, folder, work, plan, tools, identity, on_progress)
            for side in _SIDES
        }
    seconds = {"documents": sum(chunk.seconds for chunk in plan.chunks), **seconds}
    return make_report(
        config, identity, plan, shards, evaluation_ngrams=len(index), seconds=seconds
    )


def _pack_side(
    side: str,
    folder: Path,
    work: Path,
    plan: Plan,
    tools: Tools,
    identity: Identity,
    on_progress: Progress,
) -> ShardSet | None:
    """Write the shards of a side, unless they are there; None if no document goes there."""
    target, partial = folder / side, work / side
    if not target.exists():
        copies = plan.copies if side == "train" else plan.validation.astype(np.int64)
        if not copies.any():
            return None
        with ShardWriter(
            partial,
            vocab_size=len(tools.tokenizer),
            tokenizer_hash=identity.tokenizer_hash,
            created_by=_CREATED_BY,
        ) as writer:
            for source, ids in _chosen_parts(plan, tools, copies):
                on_progress(f"Packing {side}: {source}")
                writer.add(ids, source=source)
        partial.rename(target)
    return ShardSet.open(target)


def _chosen_parts(
    plan: Plan, tools: Tools, copies: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Source and token ids of every part to be packed, source by source, round by round."""
    for number, source in enumerate(tools.config.sources):
        chunks = [chunk for chunk, owner in enumerate(plan.owners) if owner == number]
        for turn in range(int(copies[plan.sources == number].max(initial=0))):
            for chunk in chunks:
                chosen = plan.of_chunk(copies, chunk) > turn
                for ids in plan.chunks[chunk].parts(chosen, tools.token_dtype):
                    yield source.name, ids


def _finished_report(folder: Path, identity: Identity) -> BuildReport | None:
    """The report of this build if the folder holds it complete, else None.

    What is left of its working folder is removed.
    """
    path = folder / "report.json"
    if not path.exists():
        return None
    report = _read(BuildReport, path, folder)
    _refuse_difference(folder, report.identity, identity)
    if not (folder / "train").is_dir():
        return None
    shutil.rmtree(folder / "work", ignore_errors=True)
    return report


@contextmanager
def _claimed(folder: Path, identity: Identity) -> Iterator[Path]:
    """Make a folder that of this build, or go on in it, while no other process does.

    Yields its working folder; what was half written there is gone.
    """
    work, claim = folder / "work", folder / "work" / "build.json"
    if not claim.exists() and _holds_files(folder):
        raise _occupied(folder, "it holds other files")
    try:
        work.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(work / "lock", timeout=0):
            if claim.exists():
                _refuse_difference(folder, _read(Identity, claim, folder), identity)
            else:
                write_whole(claim, json.dumps(asdict(identity)))
            for side in _SIDES:
                for partial in (work / side, *work.glob(f".{side}.partial-*")):
                    shutil.rmtree(partial, ignore_errors=True)
            yield work
    except filelock.Timeout as error:
        raise _occupied(folder, "another process is building in it") from error


def _holds_files(folder: Path) -> bool:
    """Whether anything but a working folder without a claim is there."""
    if folder.exists() and not folder.is_dir():
        return True
    ours = {folder / "work", folder / "work" / "lock", folder / "work" / ".build.json.partial"}
    return any(path not in ours for path in folder.rglob("*"))


def _read(cls: type[T], path: Path, folder: Path) -> T:
    try:
        return from_dict(cls, json.loads(path.read_text("utf-8")), where=str(path))
    except (OSError, ValueError, ConfigError) as error:
        raise _occupied(folder, f"{path} is not that of a build") from error


def _refuse_difference(folder: Path, found: Identity, wanted: Identity) -> None:
    difference = wanted.difference(found)
    if difference is not None:
        raise InputError(
            "The output folder holds another build.",
            got=f"{folder}: made with {difference}",
            expected="the same configuration, tokenizer and inputs, to go on or to reuse it",
            fix="choose another folder, or remove that one to start over",
        )


def _occupied(folder: Path, got: str) -> InputError:
    return InputError(
        "The output folder is in use.",
        got=f"{folder}: {got}",
        expected="a new or empty folder, or that of the same build",
        fix="choose another folder",
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
