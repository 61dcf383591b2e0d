"""Questions as searches: any text becomes a valid query, and text around what was found."""

from __future__ import annotations

import re

from icae.errors import InputError

MAX_WORDS = 64
"""Most different words of a query that are searched for."""

SNIPPET_CHARS = 160
"""Longest snippet in characters."""

_WORD = re.compile(r"\w+")


def words_of(query: str) -> list[str]:
    """The different words of a query, in order, without case.

    Args:
        query: Any text.

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
    """A query in the language of SQLite's FTS5 that matches any word.

    Args:
        query: Any text; none of it is read as an operator.

    Raises:
        InputError: If it has no word, or is not valid Unicode.
    """
    return " OR ".join(f'"{word}"' for word in words_of(query))


def snippet_of(text: str, query: str) -> str:
    """Some of a text around the first word of a query in it, on one line.

    Args:
        text: The text.
        query: What was searched for.

    Returns:
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
