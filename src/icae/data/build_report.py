"""What a data build did: documents and tokens of each source, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from icae.config.parsing import to_dict
from icae.data.build_config import BuildConfig, Identity
from icae.data.dedup import EXACT, KEPT, NEAR
from icae.data.frames import fill
from icae.data.gathering import Gathered
from icae.data.mixture import Plan
from icae.data.shards import ShardSet

_PACKAGES = ("datasketch", "numpy", "pyarrow")
_COUNTED = ("short", "letters", "repetitive", "contaminated", "few_tokens")
_DUPLICATES = {"exact": EXACT, "near": NEAR}
_AS_READ = ("read", "trimmed", "overlaps", "characters", "characters_cut", "lines_dropped")


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """One source of a build.

    ``read``, ``kept``, ``validation`` and ``train`` (copies counted) are documents.

    Attributes:
        dropped: Reason -> documents dropped: ``short``, ``letters``, ``repetitive``,
            ``contaminated``, ``few_tokens``, ``exact``, ``near``.
        trimmed: Documents kept without a passage that overlaps with an evaluation set.
        overlaps: Overlapping passages found.
        characters_cut: Characters removed as overlaps, of the ``characters`` read.
        lines_dropped: Lines of leftover markup removed.
        share_wanted: Share of the training tokens asked for, 0..1; ``share_reached`` likewise.
        copies: Training tokens per token available for training.
        missing_tokens: Tokens by which the source is too small for its share of the budget.
    """

    name: str
    read: int
    dropped: Mapping[str, int]
    trimmed: int
    overlaps: int
    characters: int
    characters_cut: int
    lines_dropped: int
    kept: int
    kept_tokens: int
    validation: int
    validation_tokens: int
    train: int
    train_tokens: int
    share_wanted: float
    share_reached: float
    copies: float
    missing_tokens: int


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """A finished build; ``documents`` and ``tokens`` are those of the training shards.

    Attributes:
        identity: Configuration, tokenizer and inputs, hashed.
        config: The configuration as plain values.
        packages: Package -> version, of those that decide the result.
        evaluation_ngrams: Distinct n-grams of the evaluation sets.
        seconds: Stage -> seconds.
    """

    identity: Identity
    config: Mapping[str, Any]
    packages: Mapping[str, str]
    sources: tuple[SourceReport, ...]
    documents: int
    tokens: int
    validation_documents: int
    validation_tokens: int
    evaluation_ngrams: int
    seconds: Mapping[str, float]


def make_report(
    config: BuildConfig,
    identity: Identity,
    found: Gathered,
    plan: Plan,
    shards: Mapping[str, ShardSet | None],
    *,
    evaluation_ngrams: int,
    seconds: Mapping[str, float],
) -> BuildReport:
    """Count what a build did; ``shards`` has what was packed for each side, None for nothing."""
    tokens = {side: one.tokens if one else 0 for side, one in shards.items()}
    documents = {side: one.documents if one else 0 for side, one in shards.items()}
    return BuildReport(
        identity=identity,
        config=to_dict(config),
        packages={name: _version(name) for name in _PACKAGES},
        sources=tuple(
            _source_report(config, found, plan, number, tokens["train"])
            for number in range(len(config.sources))
        ),
        documents=documents["train"],
        tokens=tokens["train"],
        validation_documents=documents["validation"],
        validation_tokens=tokens["validation"],
        evaluation_ngrams=evaluation_ngrams,
        seconds={stage: round(took, 1) for stage, took in seconds.items()},
    )


def _source_report(
    config: BuildConfig, found: Gathered, plan: Plan, number: int, total: int
) -> SourceReport:
    source = config.sources[number]
    counts, tokens, mine = found.counts[source.name], found.tokens, found.sources == number
    kept, held = mine & (plan.verdicts == KEPT), mine & plan.validation
    dropped = {reason: counts.get(reason, 0) for reason in _COUNTED}
    for reason, verdict in _DUPLICATES.items():
        dropped[reason] = int(np.count_nonzero(mine & (plan.verdicts == verdict)))
    train_tokens = int((plan.copies * tokens)[mine].sum())
    share = source.weight / sum(one.weight for one in config.sources)
    missing = round(share * config.tokens) - plan.wanted[number] if config.tokens else 0
    return SourceReport(
        name=source.name,
        dropped=dropped,
        kept=int(np.count_nonzero(kept)),
        kept_tokens=int(tokens[kept].sum()),
        validation=int(np.count_nonzero(held)),
        validation_tokens=int(tokens[held].sum()),
        train=int(plan.copies[mine].sum()),
        train_tokens=train_tokens,
        share_wanted=share,
        share_reached=train_tokens / total,
        copies=train_tokens / int(tokens[kept & ~held].sum()),
        missing_tokens=max(0, missing),
        **{name: counts.get(name, 0) for name in _AS_READ},
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def markdown(report: BuildReport) -> str:
    """The report for people, as Markdown."""
    inputs = [(one.role, one.path, one.sha256) for one in report.identity.inputs]
    return fill(Path(__file__).with_name("report.md.jinja"), report=report, inputs=inputs)
