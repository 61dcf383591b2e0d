"""A text and what was written back of it, aligned word by word."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from icae.memory.critical_words import critical_words, overlapping_word

CLASSES = ("form", "number", "name", "code", "other", "omission", "insertion")
"""What can be wrong with a word; see `aligned`."""
TEXT_TYPES = ("prose", "names", "figures", "code")
"""What a text mostly holds; see `text_type`."""
CRITICAL = ("number", "name", "code")
"""Kinds of words that are told apart from plain ones."""

_SHARES = (("code", "code", 0.05), ("figures", "number", 0.10), ("names", "name", 0.15))


class Word(NamedTuple):
    """A word of a text: as it stands there, without punctuation around it, and what it looks like.

    The kind is one of `CRITICAL`, or ``plain``.
    """

    text: str
    core: str
    kind: str


class Pair(NamedTuple):
    """A true word beside what stands in its place: no word for an omission.

    Of an insertion there is no true word. The error is one of `CLASSES`, or None where the words
    are equal.
    """

    true: Word | None
    written: Word | None
    error: str | None


def split_words(text: str) -> list[Word]:
    """The words of a text, with what they look like."""
    marked = critical_words(text)
    words = []
    for match in re.finditer(r"\S+", text):
        found = overlapping_word(marked, match.start(), match.end())
        core = match.group().strip("\"'“”‘’«»„()[]{}<>.,;:!?…*") or match.group()
        words.append(Word(match.group(), core, "plain" if found is None else found.kind))
    return words


def text_type(words: Sequence[Word]) -> str:
    """What a text mostly holds, one of `TEXT_TYPES`.

    Code from 5 % of its words, else figures from 10 %, else names from 15 %, else prose.
    """
    for name, kind, least in _SHARES:
        if words and sum(word.kind == kind for word in words) >= least * len(words):
            return name
    return "prose"


def aligned(true: Sequence[Word], written: Sequence[Word]) -> list[Pair]:
    """Two texts side by side (difflib), each pair of words with its error.

    Where either word of a pair is a number, a name or code, that is the error; else ``form``
    where only case or punctuation differ, or ``other``.
    """
    here, there = ([word.text for word in words] for words in (true, written))
    steps = difflib.SequenceMatcher(None, here, there, autojunk=False).get_opcodes()
    return [
        Pair(own, found, _error(own, found))
        for _, a, b, c, d in steps
        for own, found in itertools.zip_longest(true[a:b], written[c:d])
    ]


def _error(true: Word | None, written: Word | None) -> str | None:
    if true is None or written is None:
        return "insertion" if true is None else "omission"
    if true.text == written.text:
        return None
    if true.core.casefold() == written.core.casefold():
        return "form"
    kinds = (true.kind, written.kind)
    return next((kind for kind in CRITICAL if kind in kinds), "other")
