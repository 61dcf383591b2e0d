"""The datasheet of a PWC build: where it comes from, how it was made, what is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from icae.data.build_config import source_digest
from icae.data.corpus import list_corpus
from icae.data.pwc.contexts import ContextSample
from icae.data.pwc.dataset import PwcDataset
from icae.data.pwc.estimate import Price
from icae.data.pwc.plan import PwcConfig
from icae.data.pwc.prompts import PROMPTS_VERSION
from icae.data.pwc.records import Reply
from icae.data.pwc.selection import Side

BY_HAND = "## Licence and use"
"""Heading of the section that the user fills in; a rebuild keeps it."""

_TO_FILL_IN = f"""{BY_HAND}

- Licence of the texts: *to be filled in*
- Licence or terms of the answers (of the model's provider): *to be filled in*
- Licence of this data set: *to be filled in*
- Intended use, known faults: *to be filled in*
"""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who wrote the answers.

    Attributes:
        model: Name of the model; None if no model was asked.
        service: Address of the service, ``decoder`` for the frozen decoder, or None.
        options: Sampling options.
    """

    model: str | None
    service: str | None
    options: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Replies of a build and the tokens that they took, rejected ones included."""

    replies: int
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, replies: Mapping[str, Sequence[Reply]], requests: Sequence[str]) -> Usage:
        """Count the replies to some requests.

        Args:
            replies: Request id -> replies.
            requests: Ids of the requests of the build.
        """
        used = [reply for request in requests for reply in replies.get(request, ())]
        return cls(
            replies=len(used),
            prompt_tokens=sum(reply.prompt_tokens for reply in used),
            completion_tokens=sum(reply.completion_tokens for reply in used),
        )


@dataclass(frozen=True, kw_only=True)
class Making:
    """How a build was run.

    Attributes:
        commit: Commit of the code, or None outside a checkout.
        command: The command line.
        usage: What it took.
        price: Price of the tokens, if known.
    """

    commit: str | None
    command: str
    usage: Usage
    price: Price | None


def datasheet(
    dataset: PwcDataset,
    sample: ContextSample,
    config: PwcConfig,
    *,
    origin: Origin,
    making: Making,
    by_hand: str | None,
) -> str:
    """Describe a build.

    Args:
        dataset: What came out.
        sample: Its contexts.
        config: What was asked for.
        origin: Who wrote it.
        making: How it was run.
        by_hand: The section that a user filled in, kept as it is; None for an empty one.

    Returns:
        Markdown; the same for the same build.
    """
    sections = [
        "# Datasheet",
        _summary(dataset, config),
        "## How it was made",
        _lines(_how(config, origin, making)),
        "## Sources",
        _table(("corpus file", "sha256"), _sources(config.corpus)),
        *_checked_against(config),
        "## Contexts",
        _contexts(sample, config),
        "## Triplets",
        _table(
            ("task", *dataset.sides),
            [
                (task, *(f"{counts[side]:,}" for side in dataset.sides))
                for task, counts in dataset.tasks.items()
            ],
        ),
        "## Rejected",
        _rejected(dataset),
        by_hand or _TO_FILL_IN,
    ]
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def kept_by_hand(old: str) -> str | None:
    """The section of an earlier datasheet that a user filled in, or None."""
    start = old.find(BY_HAND)
    return None if start < 0 else old[start:]


def _summary(dataset: PwcDataset, config: PwcConfig) -> str:
    sides: tuple[Side, ...] = ("train", "test")
    counts = " and ".join(
        f"{len(dataset.sides[side]):,} {side} triplets on {dataset.contexts[side]:,} contexts"
        for side in sides
    )
    return (
        f"Prompt-with-Context triplets: {counts}. The split is by document (hash, seed "
        f"{config.seed}, test share {config.test_share:g}): all contexts of a document are on "
        "one side, and of near duplicate contexts one is kept."
    )


def _how(config: PwcConfig, origin: Origin, making: Making) -> dict[str, str]:
    usage, price = making.usage, making.price
    lines = {
        "Answers": "from the corpus alone"
        if origin.model is None
        else f"{origin.model} ({origin.service}), "
        + ", ".join(f"{name} {value}" for name, value in origin.options.items()),
        "Prompts": f"version {PROMPTS_VERSION}; for each context up to {config.specific} "
        f"specific, {config.general} general, {config.from_corpus} self-supervised",
        "Seed": f"{config.seed}",
        "Code": f"icae commit {making.commit or 'unknown'}",
        "Command": f"`{making.command}`",
    }
    if usage.replies:
        lines["Replies"] = (
            f"{usage.replies:,}; {usage.prompt_tokens:,} tokens read, "
            f"{usage.completion_tokens:,} written"
        )
    if price is not None:
        paid = price.of(
            prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens
        )
        lines["Price"] = (
            f"{paid:.2f} at {price.prompt:g} (read) and {price.completion:g} (written) a million"
        )
    return lines


def _sources(paths: Sequence[str]) -> list[tuple[str, str]]:
    return [(str(file), source_digest(str(file)) or "-") for file in list_corpus(paths)]


def _checked_against(config: PwcConfig) -> list[str]:
    if not config.contamination.against:
        return ["The contexts were not checked for overlap with evaluation sets (`--against`)."]
    return [
        "No context shares a run of "
        f"{config.contamination.ngram_words} words with these evaluation sets:",
        _table(("evaluation file", "sha256"), _sources(config.contamination.against)),
    ]


def _contexts(sample: ContextSample, config: PwcConfig) -> str:
    tokens = [context.tokens for context in sample.contexts] or [0]
    dropped = ", ".join(f"{name} {count:,}" for name, count in sorted(sample.dropped.items()))
    return (
        f"{len(sample.contexts):,} of {config.contexts.count:,} wanted, from "
        f"{sample.documents:,} documents; {min(tokens):,} to {max(tokens):,} tokens (asked for: "
        f"{config.contexts.min_tokens:,} to {config.contexts.max_tokens:,}), median "
        f"{int(np.median(tokens)):,}. Passages looked at and dropped: {dropped or 'none'}."
    )


def _rejected(dataset: PwcDataset) -> str:
    open_requests = (
        f"\n\n{dataset.unanswered:,} requests have no usable reply." if dataset.unanswered else ""
    )
    if not dataset.reasons:
        return f"Nothing.{open_requests}"
    rows = [(reason, f"{count:,}") for reason, count in dataset.reasons.items()]
    return f"{_table(('reason', 'count'), rows)}{open_requests}"


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
