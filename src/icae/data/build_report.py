"""What a data build did: documents and tokens of each source, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icae.data.build_inputs import Identity


@dataclass(frozen=True, kw_only=True)
class SourceReport:
    """One source of a build.

    Attributes:
        name: The source.
        read: Documents read.
        dropped: Reason -> documents dropped: ``short``, ``letters``, ``repetitive``,
            ``contaminated``, ``few_tokens``, ``exact``, ``near``.
        trimmed: Documents kept without a passage that overlaps with an evaluation set.
        overlaps: Overlapping passages found.
        characters: Characters read.
        characters_cut: Characters removed as overlaps.
        lines_dropped: Lines of leftover markup removed.
        kept: Documents that passed every check.
        kept_tokens: Their tokens.
        validation: Documents among them held out for validation.
        validation_tokens: Their tokens.
        train: Documents in the training shards, copies counted.
        train_tokens: Their tokens.
        share_wanted: Share of the training tokens asked for, 0..1.
        share_reached: Share of the training tokens reached, 0..1.
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
    """A finished build.

    Attributes:
        identity: Configuration, tokenizer and inputs, hashed.
        config: The configuration as plain values.
        packages: Package -> version, of those that decide the result.
        sources: The sources in order.
        documents: Documents in the training shards.
        tokens: Tokens in the training shards.
        validation_documents: Documents in the validation shards.
        validation_tokens: Tokens in the validation shards.
        evaluation_ngrams: Distinct n-grams of the evaluation sets.
        seconds: Stage -> seconds; those of a killed run that had to be done again are not in it.
    """

    identity: Identity
    config: Any
    packages: Mapping[str, str]
    sources: tuple[SourceReport, ...]
    documents: int
    tokens: int
    validation_documents: int
    validation_tokens: int
    evaluation_ngrams: int
    seconds: Mapping[str, float]


def markdown(report: BuildReport) -> str:
    """The report for people.

    Args:
        report: The report.

    Returns:
        Markdown.
    """
    total = sum(report.seconds.values())
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in report.seconds.items())
    sections = [
        "# Data build",
        report.config["description"].strip(),
        f"{report.tokens:,} training tokens in {report.documents:,} documents, "
        f"{report.validation_tokens:,} validation tokens in {report.validation_documents:,}. "
        f"Tokenizer of {report.config['base']}, seed {report.config['seed']}, "
        f"configuration {report.identity.config_sha256[:12]}; {total:.0f} s ({stages}).",
        "## Mixture",
        _table(
            ("source", "kept tokens", "validation", "train tokens", "wanted", "reached", "copies"),
            [_mixture_row(source) for source in report.sources],
        ),
        *_missing(report.sources),
        "## Documents",
        "In order: read; dropped as too short, hardly letters, repetitive, overlapping with an "
        "evaluation set, of too few tokens, exact and near duplicates; kept.",
        _table(
            ("source", "read", *_REASONS.values(), "kept"),
            [_document_row(source) for source in report.sources],
        ),
        f"## Overlap with evaluation sets ({report.evaluation_ngrams:,} n-grams)",
        _table(
            ("source", "passages", "documents dropped", "documents trimmed", "characters cut"),
            [_overlap_row(source) for source in report.sources],
        ),
        "## Inputs",
        _table(
            ("for", "file", "sha256"),
            [(one.role, one.path, one.sha256 or "-") for one in report.identity.inputs],
        ),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


_REASONS = {
    "short": "short",
    "letters": "letters",
    "repetitive": "repetitive",
    "contaminated": "overlap",
    "few_tokens": "tokens",
    "exact": "exact",
    "near": "near",
}


def _mixture_row(source: SourceReport) -> tuple[str, ...]:
    return (
        source.name,
        f"{source.kept_tokens:,}",
        f"{source.validation_tokens:,}",
        f"{source.train_tokens:,}",
        f"{100 * source.share_wanted:.2f} %",
        f"{100 * source.share_reached:.2f} %",
        f"{source.copies:.2f}",
    )


def _document_row(source: SourceReport) -> tuple[str, ...]:
    dropped = (f"{source.dropped.get(reason, 0):,}" for reason in _REASONS)
    return (source.name, f"{source.read:,}", *dropped, f"{source.kept:,}")


def _overlap_row(source: SourceReport) -> tuple[str, ...]:
    return (
        source.name,
        f"{source.overlaps:,}",
        f"{source.dropped.get('contaminated', 0):,}",
        f"{source.trimmed:,}",
        f"{source.characters_cut:,} of {source.characters:,}",
    )


def _missing(sources: Sequence[SourceReport]) -> list[str]:
    return [
        f"**{source.name} is too small**: {source.missing_tokens:,} tokens are missing for its "
        "share of the budget. Allow more copies (`repeat`), or ask for fewer tokens."
        for source in sources
        if source.missing_tokens
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
