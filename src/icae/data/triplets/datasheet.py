"""The data sheet of a triplet build: where it comes from, how it was made, what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icae.data.contamination import NGRAM_WORDS
from icae.data.corpus import list_corpus
from icae.data.frames import fill
from icae.data.rows import file_hash
from icae.data.triplets.contexts import ContextSample
from icae.data.triplets.dataset import DATASHEET, TripletBuild, beside
from icae.data.triplets.prompts import prompt_book
from icae.data.triplets.records import TripletConfig
from icae.data.triplets.requests import Writer

BY_HAND = "## Licence and use"
"""Heading of the section that the user fills in; a rebuild keeps it."""

_TO_FILL_IN = f"""{BY_HAND}

- Licence of the texts: *to be filled in*
- Licence or terms of the answers (of the model's provider): *to be filled in*
- Licence of this data set: *to be filled in*
- Intended use, known faults: *to be filled in*
"""


def datasheet(
    made: TripletBuild,
    sample: ContextSample,
    config: TripletConfig,
    writer: Writer | None,
    *,
    train: Path,
    commit: str | None,
    command: str,
) -> str:
    """Describe a build, in Markdown; the same for the same build.

    What a user filled in before in the data sheet beside the training triplets is kept.
    """
    path = beside(train, DATASHEET)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    tokens = [context.tokens for context in sample.contexts] or [0]
    page = fill(
        Path(__file__).with_name("datasheet.md.jinja"),
        made=made,
        sample=sample,
        config=config,
        writer=writer,
        commit=commit,
        command=command,
        prompts=prompt_book().version,
        ngram_words=NGRAM_WORDS,
        corpus=_digests(config.corpus),
        against=_digests(config.against),
        tokens=tokens,
        median=int(np.median(tokens)),
        tasks=[(task, counts["train"], counts["test"]) for task, counts in made.tasks.items()],
    )
    by_hand = old[old.find(BY_HAND) :] if BY_HAND in old else _TO_FILL_IN
    return f"{page}\n{by_hand.strip(chr(10))}\n"


def _digests(paths: Sequence[str]) -> list[tuple[str, str]]:
    return [(str(file), file_hash(file)) for file in list_corpus(paths)]
