"""Build training data: corpora to a mixture of clean, distinct documents as token shards.

Three stages. (1) Every input file is read once, in chunks: clean, cut out overlaps with the
evaluation sets, tokenize, hash (`icae.data.chunks`). (2) Duplicates are found over all
chunks, in the order of the configuration, and documents are split and chosen for the shares
asked for (`icae.data.build_plan`). (3) The tokens of the chosen documents are packed.

A build that was killed, by whatever, goes on when it is started again, and the shards come
out the same byte for byte. What it needs for that lies in ``work/`` in the output folder
until it is done. In memory are the keys and signatures of all documents, never their texts.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.config.parsing import to_dict
from icae.data.build_config import BuildConfig
from icae.data.build_folder import SIDES, claimed, finished_report, save_report
from icae.data.build_inputs import EVALUATION, Identity, identify
from icae.data.build_plan import Plan, make_plan
from icae.data.build_report import BuildReport, SourceReport
from icae.data.chunks import Tools, read_chunks, write_chunks
from icae.data.contamination import NgramIndex, evaluation_texts
from icae.data.corpus import read_source
from icae.data.dedup import EXACT, KEPT, NEAR, Sketcher
from icae.data.shards import ShardSet, ShardWriter, TokenizerLike

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]

_PACKAGES = ("datasets", "datasketch", "numpy", "pyarrow")
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
    A finished build is left as it is and its report returned.

    Args:
        config: The build.
        tokenizer: Cuts the text into tokens.
        folder: Output; new, empty, or that of the same build.
        tokenizer_hash: Hash of the tokenizer.
        on_progress: Called with a line on what is being done.

    Raises:
        InputError: If an input cannot be read, the folder is that of something else or of
            a build with other settings or inputs, or a source has no document left.
        MissingDependencyError: If a package of the extra ``data`` is not installed.
    """
    folder = Path(folder)
    sketcher = Sketcher(config.dedup, seed=config.seed)
    identity = identify(config, tokenizer_hash=tokenizer_hash)
    if (finished := finished_report(folder, identity)) is not None:
        return finished
    seconds: dict[str, float] = {}
    with claimed(folder, identity) as work:
        with _timed(seconds, "evaluation n-grams"):
            on_progress("Reading the evaluation sets")
            index = _index(config)
        tools = Tools(config=config, tokenizer=tokenizer, sketcher=sketcher, index=index)
        _prepare(identity, work, tools, on_progress)
        with _timed(seconds, "duplicates"):
            on_progress("Finding duplicates")
            plan = _plan(config, identity, work)
        with _timed(seconds, "packing"):
            shards = {
                side: _pack(plan, side, folder, work, tools, identity, on_progress)
                for side in SIDES
            }
        seconds = {"documents": sum(chunk.seconds for chunk in plan.chunks), **seconds}
        report = _report(config, identity, plan, shards, len(index), seconds)
        save_report(report, folder)
        shutil.rmtree(work, ignore_errors=True)
    logger.info("Built %d training tokens in %s.", report.tokens, folder)
    return report


def _index(config: BuildConfig) -> NgramIndex:
    check = config.contamination
    return NgramIndex(evaluation_texts(check.against), n=check.ngram_words)


def _inputs(identity: Identity, work: Path) -> Iterator[tuple[str, str, Path]]:
    """Source, path and prefix of the chunks of every corpus file."""
    for number, file in enumerate(identity.inputs):
        if file.role != EVALUATION:
            yield file.role, file.path, work / "chunks" / f"{number:04d}"


def _prepare(identity: Identity, work: Path, tools: Tools, on_progress: Progress) -> None:
    for _, path, prefix in _inputs(identity, work):
        for seen in write_chunks(read_source(path), prefix, tools):
            on_progress(f"Reading {Path(path).name}: {seen:,} documents")


def _plan(config: BuildConfig, identity: Identity, work: Path) -> Plan:
    numbers = {source.name: number for number, source in enumerate(config.sources)}
    found = [
        (chunk, numbers[role])
        for role, _, prefix in _inputs(identity, work)
        for chunk in read_chunks(prefix)
    ]
    return make_plan(config, [chunk for chunk, _ in found], [owner for _, owner in found])


def _pack(
    plan: Plan,
    side: str,
    folder: Path,
    work: Path,
    tools: Tools,
    identity: Identity,
    on_progress: Progress,
) -> ShardSet | None:
    """Write the shards of one side; None if no document goes there."""
    target = folder / side
    if target.exists():
        return ShardSet.open(target)
    copies = plan.copies if side == "train" else plan.validation.astype(np.int64)
    if not copies.any():
        return None
    with ShardWriter(
        work / side,
        vocab_size=len(tools.tokenizer),
        tokenizer_hash=identity.tokenizer_hash,
        created_by=_CREATED_BY,
    ) as writer:
        for source, ids in _chosen_parts(plan, copies, tools):
            on_progress(f"Packing {side}: {source}")
            writer.add(ids, source=source)
    (work / side).rename(target)
    return ShardSet.open(target)


def _chosen_parts(
    plan: Plan, copies: NDArray[np.int64], tools: Tools
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Source and token ids of every part to be packed, source by source, round by round."""
    for number, source in enumerate(tools.config.sources):
        chunks = [chunk for chunk, owner in enumerate(plan.owners) if owner == number]
        for turn in range(int(copies[plan.sources == number].max(initial=0))):
            for chunk in chunks:
                chosen = plan.of_chunk(copies, chunk) > turn
                for ids in plan.chunks[chunk].parts(chosen, tools.token_dtype):
                    yield source.name, ids


def _report(
    config: BuildConfig,
    identity: Identity,
    plan: Plan,
    shards: Mapping[str, ShardSet | None],
    evaluation_ngrams: int,
    seconds: Mapping[str, float],
) -> BuildReport:
    tokens = {side: one.tokens if one else 0 for side, one in shards.items()}
    documents = {side: one.documents if one else 0 for side, one in shards.items()}
    return BuildReport(
        identity=identity,
        config=to_dict(config),
        packages={name: _version(name) for name in _PACKAGES},
        sources=tuple(
            _source_report(config, plan, number, tokens["train"])
            for number in range(len(config.sources))
        ),
        documents=documents["train"],
        tokens=tokens["train"],
        validation_documents=documents["validation"],
        validation_tokens=tokens["validation"],
        evaluation_ngrams=evaluation_ngrams,
        seconds={stage: round(took, 1) for stage, took in seconds.items()},
    )


def _source_report(config: BuildConfig, plan: Plan, number: int, total: int) -> SourceReport:
    source = config.sources[number]
    counts: Counter[str] = Counter()
    for chunk, owner in zip(plan.chunks, plan.owners, strict=True):
        if owner == number:
            counts.update(chunk.counts)
    mine = plan.sources == number
    kept, held = mine & (plan.verdicts == KEPT), mine & plan.validation
    train_tokens = int((plan.copies * plan.tokens)[mine].sum())
    share = source.weight / sum(one.weight for one in config.sources)
    wanted = plan.wanted[source.name]
    reasons = ("short", "letters", "repetitive", "contaminated", "few_tokens")
    dropped = {reason: counts[reason] for reason in reasons}
    for reason, verdict in (("exact", EXACT), ("near", NEAR)):
        dropped[reason] = int(np.count_nonzero(mine & (plan.verdicts == verdict)))
    return SourceReport(
        name=source.name,
        read=counts["read"],
        dropped=dropped,
        trimmed=counts["trimmed"],
        overlaps=counts["overlaps"],
        characters=counts["characters"],
        characters_cut=counts["characters_cut"],
        lines_dropped=counts["lines_dropped"],
        kept=int(np.count_nonzero(kept)),
        kept_tokens=int(plan.tokens[kept].sum()),
        validation=int(np.count_nonzero(held)),
        validation_tokens=int(plan.tokens[held].sum()),
        train=int(plan.copies[mine].sum()),
        train_tokens=train_tokens,
        share_wanted=share,
        share_reached=train_tokens / total,
        copies=train_tokens / int(plan.tokens[kept & ~held].sum()),
        missing_tokens=max(0, round(share * config.tokens) - wanted) if config.tokens else 0,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
