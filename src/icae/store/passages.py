"""Passages: runs of spans long enough to be found by their words, and the words of a question."""

from __future__ import annotations

import re
from dataclasses import dataclass

from icae.errors import InputError
from icae.memory import Memory

PASSAGE_TOKENS = 128
"""A passage is closed once it has as many tokens."""

MAX_WORDS = 64
"""Most different words of a query that are searched for."""

SNIPPET_CHARS = 160
"""Longest snippet in characters."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Consecutive spans of one document, by its index and name; see `SearchHit` for the rest."""

    document: int
    document_name: str
    span_first: int
    span_end: int
    char_start: int
    char_end: int
    positions: int
    text: str


def passages_of(memory: Memory) -> list[Passage]:
    """Passages that cover every document of a memory whose text was kept, in order.

    Each has the spans it takes to reach `PASSAGE_TOKENS` tokens; the last of a document
    may be shorter.
    """
    passages = []
    for d, document in enumerate(memory.documents):
        if document.source is None:
            continue
        offset, first, tokens = memory.span_range(d).start, 0, 0
        for i, span in enumerate(document.spans):
            tokens += span.tokens
            if tokens < PASSAGE_TOKENS and i + 1 < len(document.spans):
                continue
            own = document.spans[first : i + 1]
            passages.append(
                Passage(
                    document=d,
                    document_name=document.name,
                    span_first=offset + first,
                    span_end=offset + i + 1,
                    char_start=own[0].char_start,
                    char_end=own[-1].char_end,
                    positions=sum(span.positions for span in own),
                    text=document.source[own[0].char_start : own[-1].char_end],
                )
            )
            first, tokens = i + 1, 0
    return passages


def words_of(query: str) -> list[str]:
    """The different words of any text, in order, without case.

    Raises:
        InputError: If it has no word, or is not valid Unicode.
    """
    try:
        query.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            "The query is not valid text.", got=error.reason, expected="text in UTF-8"
        ) from error
    words = dict.fromkeys(match.casefold() for match in _WORD.findall(query) if match.strip("_"))
    if not words:
        raise InputError(
            "There is nothing to search for.",
            got=f"{query[:40]!r}, which has no word",
            expected="at least one word",
        )
    return list(words)[:MAX_WORDS]


def fts_query(query: str) -> str:
    """A text in the language of SQLite's FTS5 that matches any word of it; see `words_of`."""
    return " OR ".join(f'"{word}"' for word in words_of(query))


def snippet_of(text: str, query: str) -> str:
    """Some of a text around the first word of a query in it, on one line.

    At most `SNIPPET_CHARS` characters, with an ellipsis where text was left out.
    """
    wanted = set(words_of(query))
    found = (m.start() for m in _WORD.finditer(text) if m.group().casefold() in wanted)
    at = next(found, 0)
    width = SNIPPET_CHARS - 2  # an ellipsis at each end
    start = max(0, min(at - SNIPPET_CHARS // 4, len(text) - width))
    end = min(len(text), start + width)
    line = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{line}{'…' if end < len(text) else ''}"
