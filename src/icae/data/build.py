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
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import filelock
import numpy as np
from numpy.typing import NDArray

from icae.config.parsing import from_dict
from icae.data.build_config import EVALUATION, BuildConfig, Identity, InputFile, identify
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
            seconds: dict[str, float] = {"documents": 0.0}
            on_progress("Reading the evaluation sets")
            with _timed(seconds, "evaluation n-grams"):
                texts = evaluation_texts(config.contamination.against)
                index = NgramIndex(texts, n=config.contamination.ngram_words)
            tools = Tools(config=config, tokenizer=tokenizer, sketcher=sketcher, index=index)
            report = _Build(folder, work, identity, tools, on_progress).report(seconds)
            write_whole(folder / "report.md", markdown(report))
            text = json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n"
            write_whole(folder / "report.json", text)  # last: it marks the build as complete
            shutil.rmtree(work, ignore_errors=True)
        logger.info("Built %d training tokens in %s.", report.tokens, folder)
    return report


@dataclass(frozen=True)
class _Build:
    """A build in its folder; every stage does what is not done yet."""

    folder: Path
    work: Path
    identity: Identity
    tools: Tools
    on_progress: Progress

    def report(self, seconds: dict[str, float]) -> BuildReport:
        """Do the three stages; ``seconds`` gets what each takes."""
        chunks: list[Chunk] = []
        for number, file in enumerate(self.identity.inputs):
            if file.role != EVALUATION:
                chunks += self._read(self.work / "chunks" / f"{number:04d}", file)
        seconds["documents"] = sum(chunk.seconds for chunk in chunks)
        self.on_progress("Finding duplicates")
        with _timed(seconds, "duplicates"):
            plan = make_plan(self.tools.config, chunks)
        with _timed(seconds, "packing"):
            shards = {side: self._pack(side, plan) for side in _SIDES}
        return make_report(
            self.tools.config,
            self.identity,
            plan,
            shards,
            evaluation_ngrams=len(self.tools.index),
            seconds=seconds,
        )

    def _read(self, prefix: Path, file: InputFile) -> list[Chunk]:
        for seen in write_chunks(read_source(Path(file.path)), prefix, file.role, self.tools):
            self.on_progress(f"Reading {Path(file.path).name}: {seen:,} documents")
        return read_chunks(prefix, file.role)

    def _pack(self, side: str, plan: Plan) -> ShardSet | None:
        """Write the shards of a side, unless they are there; None if no document goes there."""
        target, partial = self.folder / side, self.work / side
        if not target.exists():
            copies = plan.copies if side == "train" else plan.validation.astype(np.int64)
            if not copies.any():
                return None
            with ShardWriter(
                partial,
                vocab_size=len(self.tools.tokenizer),
                tokenizer_hash=self.identity.tokenizer_hash,
                created_by="icae data build",
            ) as writer:
                for source, ids in _chosen_parts(plan, copies, self.tools.token_dtype):
                    self.on_progress(f"Packing {side}: {source}")
                    writer.add(ids, source=source)
            partial.rename(target)
        return ShardSet.open(target)


def _chosen_parts(
    plan: Plan, copies: NDArray[np.int64], dtype: np.dtype[Any]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Source and token ids of every part to be packed, source by source, round by round."""
    each = np.split(copies, plan.ends[:-1])
    for source, group in groupby(zip(plan.chunks, each, strict=True), key=lambda o: o[0].source):
        chunks = list(group)
        for turn in range(max(int(own.max(initial=0)) for _, own in chunks)):
            for chunk, own in chunks:
                for ids in chunk.parts(own > turn, dtype):
                    yield source, ids


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
