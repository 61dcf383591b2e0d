"""The data sheet of a triplet build: where it comes from, how it was made, what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icae.data.build_config import source_digest
from icae.data.build_report import markdown_table
from icae.data.corpus import list_corpus
from icae.data.triplets.config import TripletConfig
from icae.data.triplets.contexts import NGRAM_WORDS, ContextSample
from icae.data.triplets.dataset import DATASHEET, SIDES, TripletSet, beside
from icae.data.triplets.prompts import prompt_book
from icae.data.triplets.requests import Price, Writer

BY_HAND = "## Licence and use"
"""Heading of the section that the user fills in; a rebuild keeps it."""

_TO_FILL_IN = f"""{BY_HAND}

- Licence of the texts: *to be filled in*
- Licence or terms of the answers (of the model's provider): *to be filled in*
- Licence of this data set: *to be filled in*
- Intended use, known faults: *to be filled in*
"""


def datasheet(
    made: TripletSet,
    sample: ContextSample,
    config: TripletConfig,
    writer: Writer | None,
    *,
    train: Path,
    price: Price | None,
    commit: str | None,
    command: str,
) -> str:
    """Describe a build, in Markdown; the same for the same build.

    What a user filled in before in the data sheet beside the training triplets is kept.
    """
    how = [
        f"Answers: {_origin(writer)}",
        f"Prompts: version {prompt_book().version}; for each context up to {config.specific} "
        f"specific, {config.general} general, {config.from_corpus} self-supervised",
        f"Seed: {config.seed}",
        f"Code: icae commit {commit or 'unknown'}",
        f"Command: `{command}`",
        *_cost(made, price),
    ]
    rows = [[task, *(f"{counts[side]:,}" for side in SIDES)] for task, counts in made.tasks.items()]
    sections = [
        "# Datasheet",
        _summary(made, config),
        "## How it was made",
        "\n".join(f"- {line}" for line in how),
        "## Sources",
        _digests("corpus file", config.corpus),
        *_checked_against(config),
        "## Contexts",
        _contexts(sample, config),
        "## Triplets",
        markdown_table(("task", *SIDES), rows),
        "## Rejected",
        _rejected(made),
        _filled_in(train) or _TO_FILL_IN,
    ]
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def _filled_in(train: Path) -> str | None:
    """The section of an earlier data sheet that a user filled in, or None."""
    path = beside(train, DATASHEET)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    start = old.find(BY_HAND)
    return None if start < 0 else old[start:]


def _summary(made: TripletSet, config: TripletConfig) -> str:
    counts = " and ".join(
        f"{len(made.sides[side]):,} {side} triplets on {made.contexts[side]:,} contexts"
        for side in SIDES
    )
    return (
        f"Prompt-with-Context triplets: {counts}. The split is by document (hash, seed "
        f"{config.seed}, test share {config.test_share:g}): all contexts of a document are on "
        "one side, and of near duplicate contexts one is kept."
    )


def _origin(writer: Writer | None) -> str:
    if writer is None:
        return "from the corpus alone"
    options = ", ".join(f"{name} {value}" for name, value in writer.options.items())
    return f"{writer.model} ({writer.service}), {options}"


def _cost(made: TripletSet, price: Price | None) -> list[str]:
    replies, read, written = made.usage.values()
    lines = [f"Replies: {replies:,}; {read:,} tokens read, {written:,} written"] if replies else []
    if price is not None:
        paid = price.of(read, written)
        each = f"{price.prompt:g} (read) and {price.completion:g} (written) a million"
        lines.append(f"Price: {paid:.2f} at {each}")
    return lines


def _digests(head: str, paths: Sequence[str]) -> str:
    rows = [(str(file), source_digest(str(file)) or "-") for file in list_corpus(paths)]
    return markdown_table((head, "sha256"), rows)


def _checked_against(config: TripletConfig) -> list[str]:
    if not config.against:
        return ["The contexts were not checked for overlap with evaluation sets (`--against`)."]
    return [
        f"No context shares a run of {NGRAM_WORDS} words with these evaluation sets:",
        _digests("evaluation file", config.against),
    ]


def _contexts(sample: ContextSample, config: TripletConfig) -> str:
    tokens = [context.tokens for context in sample.contexts] or [0]
    dropped = ", ".join(f"{name} {count:,}" for name, count in sorted(sample.dropped.items()))
    return (
        f"{len(sample.contexts):,} of {config.contexts:,} wanted, from "
        f"{sample.documents:,} documents; {min(tokens):,} to {max(tokens):,} tokens (asked for: "
        f"{config.min_tokens:,} to {config.max_tokens:,}), median "
        f"{int(np.median(tokens)):,}. Passages looked at and dropped: {dropped or 'none'}."
    )


def _rejected(made: TripletSet) -> str:
    reasons = made.reasons.items()
    text = markdown_table(("reason", "count"), reasons) if reasons else "Nothing."
    if made.unanswered:
        text += f"\n\n{made.unanswered:,} requests have no usable reply."
    return text
