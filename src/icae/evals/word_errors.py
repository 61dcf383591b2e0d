"""A text and what was written back of it, aligned word by word. Pure: no model, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from icae.memory.critical_words import critical_words, overlapping_word

CLASSES = ("form", "like meaning", "number", "name", "code", "other", "omission", "insertion")
"""What can be wrong with a word; see `aligned`."""

TEXT_TYPES = ("prose", "names", "figures", "code")
"""What a text mostly holds; see `text_type`."""

_GAP = 0.75
_CLOSE = 0.5
_FAR = 1.0
_SHARES = (("code", "code", 0.05), ("figures", "number", 0.10), ("names", "name", 0.15))


class Likeness(Protocol):
    """Tells whether two words mean about the same."""

    def alike(self, true: Sequence[str], written: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each true word is like each written one, [true, written]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word of a text.

    Attributes:
        text: As it stands there, without white space.
        core: Without the punctuation around it.
        kind: ``number``, ``name``, ``code`` or ``plain``.
    """

    text: str
    core: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A true word beside what stands in its place.

    Attributes:
        true: Index of the true word, or None for an insertion.
        written: Index of the written word, or None for an omission.
        error: One of `CLASSES`, or None where the words are equal.
    """

    true: int | None
    written: int | None
    error: str | None


def split_words(text: str) -> list[Word]:
    """The words of a text, with what they look like."""
    marked = critical_words(text)
    words, at = [], 0
    for part in text.split():
        start = text.index(part, at)
        at = start + len(part)
        found = overlapping_word(marked, start, at)
        core = part.strip("\"'“”‘’«»„()[]{}<>.,;:!?…*") or part
        words.append(Word(text=part, core=core, kind="plain" if found is None else found.kind))
    return words


def text_type(words: Sequence[Word]) -> str:
    """What a text mostly holds, one of `TEXT_TYPES`.

    Code from 5 % of its words, else figures from 10 %, else names from 15 %, else prose.
    """
    for name, kind, least in _SHARES:
        if words and sum(word.kind == kind for word in words) >= least * len(words):
            return name
    return "prose"


def aligned(true: Sequence[Word], written: Sequence[Word], likeness: Likeness) -> list[Pair]:
    """The cheapest alignment of two texts, each step with its error.

    Equal words cost nothing, words that differ in case or punctuation or mean about the
    same 0.5, other pairs 1, a word without a partner 0.75.

    Args:
        true: Words of the source.
        written: Words that the decoder wrote.
        likeness: Knows which words mean about the same.

    Returns:
        Pairs in order. Where either word of a pair is a number, a name or code, that is the
        error; else ``form`` where only case or punctuation differ, ``like meaning`` or
        ``other``.
    """
    alike = likeness.alike([w.core for w in true], [w.core for w in written])
    errors = [
        [_error(a, b, bool(alike[i, j])) for j, b in enumerate(written)] for i, a in enumerate(true)
    ]
    steps = _cheapest(errors, len(true), len(written))
    pairs = []
    for i, j in steps:
        error = "insertion" if i is None else "omission" if j is None else errors[i][j]
        pairs.append(Pair(true=i, written=j, error=error))
    return pairs


def _error(true: Word, written: Word, alike: bool) -> str | None:
    if true.text == written.text:
        return None
    if true.core.casefold() == written.core.casefold():
        return "form"
    kinds = {true.kind, written.kind}
    for kind in ("number", "name", "code"):
        if kind in kinds:
            return kind
    return "like meaning" if alike else "other"


def _cheapest(
    errors: Sequence[Sequence[str | None]], rows: int, columns: int
) -> list[tuple[int | None, int | None]]:
    """Steps of the cheapest path: a pair, a true word alone or a written word alone."""
    cost = np.zeros((rows + 1, columns + 1))
    cost[:, 0], cost[0, :] = _GAP * np.arange(rows + 1), _GAP * np.arange(columns + 1)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            pair = cost[i - 1, j - 1] + _price(errors[i - 1][j - 1])
            cost[i, j] = min(pair, cost[i - 1, j] + _GAP, cost[i, j - 1] + _GAP)
    steps: list[tuple[int | None, int | None]] = []
    i, j = rows, columns
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + _price(errors[i - 1][j - 1]):
            i, j = i - 1, j - 1
            steps.append((i, j))
        elif i and cost[i, j] == cost[i - 1, j] + _GAP:
            i -= 1
            steps.append((i, None))
        else:
            j -= 1
            steps.append((None, j))
    return steps[::-1]


def _price(error: str | None) -> float:
    if error is None:
        return 0.0
    return _CLOSE if error in ("form", "like meaning") else _FAR
