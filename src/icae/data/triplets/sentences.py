"""Sentences and names of English text, well enough to quote from it."""

from __future__ import annotations

import re

_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s)|\n+")
_NOT_AN_END = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Rev|Gen|Col|Lt|Capt|Sgt|Gov|Sen|Rep|Hon|Messrs|Mt|Ft|"
    r"No|Nos|Vol|vol|pp|p|ed|eds|vs|cf|ca|c|b|d|r|fl|e\.g|i\.e|etc|approx|Inc|Ltd|Co|Corp|Bros|"
    r"Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec|Fig|Ph\.D|U\.S|U\.K)|\b[A-Z][a-z]?)\.$"
)
PROPER = r"[A-Z][\w-]*[a-z]\b(?:(?: (?:of|the|de|van|von|du|da|la|le))* [A-Z][\w-]*[a-z]\b){0,4}"
"""A name of up to five words."""
# Behind a word in lower case, so that no sentence starts with it and no part of it is left out.
NAME = rf"\b[a-z][\w’'-]*[,;]? ({PROPER})(?! [A-Z])"
"""A name inside a sentence, as group 1."""

_WHOLE = re.compile(r"[.!?][\"'”’)\]*_]*$")


def sentences(text: str) -> list[str]:
    """Cut a text into sentences, stripped and none empty; a line end ends one too.

    What is no whole sentence, such as a heading, is among them: see `is_sentence`.
    """
    found, start = [], 0
    for match in _END.finditer(text):
        end = match.end()
        if not match.group().startswith("\n") and _goes_on(text, start, end):
            continue
        found.append(text[start:end].strip())
        start = end
    found.append(text[start:].strip())
    return [one for one in found if one]


def is_sentence(text: str) -> bool:
    """Whether a text starts like a sentence, ends like one, and closes what it quotes."""
    first = text.lstrip("\"'“‘([*_")[:1]
    closed = text.count('"') % 2 == 0 and text.count("“") == text.count("”")
    return closed and (first.isupper() or first.isdigit()) and _WHOLE.search(text) is not None


def ends_like_a_sentence(text: str) -> bool:
    """Whether a text ends with a full stop, an exclamation or a question mark."""
    return _WHOLE.search(text.rstrip()) is not None


def _goes_on(text: str, start: int, end: int) -> bool:
    """Whether the stop that ends at `end` belongs to an abbreviation, or no capital follows."""
    after = text[end:].lstrip(" \t\"'“‘([*_")[:1]
    if after and not (after.isupper() or after.isdigit() or after == "\n"):
        return True
    return _NOT_AN_END.search(text, start, end) is not None
