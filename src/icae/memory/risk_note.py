"""A short note of what the slots of a memory lose and a reader cannot guess: numbers, names, code.

Put into the prompt, before the question, it brought back more right answers than as many
positions spent on more slots (docs/fidelity.md).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from icae.errors import InputError
from icae.memory.critical_words import critical_words
from icae.memory.fidelity import join_token_fidelity
from icae.memory.memory import Memory


def words_at_risk(text: str, starts: Sequence[int], reproduced: NDArray[np.bool_]) -> list[str]:
    """Numbers, names and code of a text that its slots lose, each once, in order.

    Of each of its L tokens: the character at which it starts, and whether it is `reproduced`.
    """
    ends = [*starts[1:], len(text)]
    lost = [(starts[i], ends[i]) for i in np.flatnonzero(~reproduced).tolist()]
    risky = []
    for word in critical_words(text):
        # Tokens stand in order: the first lost one that ends behind the word's start decides.
        first = bisect.bisect_right(lost, word.start, key=lambda token: token[1])
        if first < len(lost) and lost[first][0] < word.end:
            risky.append(text[word.start : word.end])
    return list(dict.fromkeys(risky))


def note_of_words(words: Sequence[str]) -> str:
    """The note as it stands in the prompt; empty without words."""
    return "Words in the text: " + ", ".join(words) if words else ""


def risk_note(memory: Memory, places: Sequence[Sequence[int] | None]) -> str:
    """The note of a whole memory; empty if nothing that matters is lost.

    `places` are where the tokens of each document start, or None if not known. An InputError if the
    text or the fidelity of a document is not known.
    """
    words: list[str] = []
    for document, starts in zip(memory.documents, places, strict=True):
        fidelity = join_token_fidelity([span.token_fidelity for span in document.spans])
        if fidelity is None or document.source is None or starts is None:
            raise InputError(
                "A note of what the slots lose needs the text and the fidelity of its tokens.",
                got=f"{document.name}: "
                + ("no fidelity" if fidelity is None else "its text is not known token by token"),
                expected="a memory compressed without --no-source and --no-verify",
                fix="Leave --note out, or compress the document again.",
            )
        words += words_at_risk(document.source, starts, fidelity.reproduced)
    return note_of_words(list(dict.fromkeys(words)))
