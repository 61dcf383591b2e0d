"""Words whose loss does the most harm: numbers, names and code, told by their looks.

A rule of thumb without a model, for marking what to look at first.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CriticalKind = Literal["number", "name", "code"]

_WORD = re.compile(r"\S+")
_EDGE = "\"'“”‘’«»„()[]{}<>.,;:!?…*"
_CODE = re.compile(r"[_\\=|{}#@`^~$]|::|->|\(\)|\w[./]\w|[a-z][A-Z]")
_SENTENCE_END = re.compile(r"[.!?:…][\"'”’»)\]]*$")


@dataclass(frozen=True, kw_only=True)
class CriticalWord:
    """A word that should not be lost: the characters ``start..end`` of a text."""

    start: int
    end: int
    kind: CriticalKind


def critical_words(text: str) -> list[CriticalWord]:
    """The words of a text that look like numbers, names or code, without punctuation around.

    A number has a digit; code has a sign that prose has not, or a capital inside; a name
    starts with a capital where no sentence starts.
    """
    found = []
    end, previous = 0, ""
    for match in _WORD.finditer(text):
        word = match.group()
        # First of the text, of a paragraph or line, or after a full stop.
        newline = "\n" in text[end : match.start()]
        starts = not previous or newline or _SENTENCE_END.search(previous) is not None
        kind = _kind(word, starts_sentence=starts)
        if kind is not None:
            start = match.start() + len(word) - len(word.lstrip(_EDGE))
            found.append(CriticalWord(start=start, end=start + len(word.strip(_EDGE)), kind=kind))
        end, previous = match.end(), word
    return found


def overlapping_word(words: Sequence[CriticalWord], start: int, end: int) -> CriticalWord | None:
    """The first critical word, if any, that shares one of the characters ``start..end``."""
    index = bisect.bisect_right(words, start, key=lambda word: word.end)
    return words[index] if index < len(words) and words[index].start < end else None


def _kind(word: str, *, starts_sentence: bool) -> CriticalKind | None:
    core = word.strip(_EDGE)
    if not core:
        return None
    if any(character.isdigit() for character in core):
        return "number"
    if _CODE.search(core) or word.endswith("()"):
        return "code"
    if core[:1].isupper() and core != "I" and not starts_sentence:
        return "name"
    return None
