"""Passages: runs of spans long enough to be found by their words, and the words of a question."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from icae.errors import InputError
from icae.memory import Memory
from icae.store.records import Passage

PASSAGE_TOKENS = 128
"""A passage is closed once it has as many tokens."""

MAX_WORDS = 128
"""Most different words of a query that are searched for."""

SNIPPET_CHARS = 160
"""Longest snippet in characters."""

# Thai, Lao, Myanmar, Khmer; Korean, Chinese, Japanese: no spaces, or endings grown to the word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1100-\u11ff\u3005\u3007\u3040-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_IDEOGRAPH = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")
_ENDING = re.compile("[\u3040-\u309f]{2}")  # hiragana alone: grammar, where other words are asked
_RUN = re.compile(f"[{_UNSPACED}]+")
_WORD = re.compile(f"[{_UNSPACED}]+|[^\\W{_UNSPACED}]+")


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


def indexed_text(text: str) -> str | None:
    """What the index holds in place of a text in a script without spaces; None for other texts.

    Such a run stands there as its pairs of characters that follow each other, its ideographs
    and its last character, so that what is in it is found at any place; other words stay.
    """
    found = _RUN.search(text)
    return found and _RUN.sub(
        lambda run: f" {' '.join(piece for _, piece in _pieces(run.group()))} ", text
    )


def _pieces(run: str) -> Iterator[tuple[int, str]]:
    """Pairs of characters of a run, then the single ones that are indexed, and their places."""
    run = unicodedata.normalize("NFKC", run)
    last = len(run) - 1
    yield from ((at, run[at : at + 2]) for at in range(last))
    yield from ((at, c) for at, c in enumerate(run) if at == last or _IDEOGRAPH.match(c))


def _terms(text: str) -> Iterator[tuple[int, str]]:
    """Where each word of a text starts, and the word, or the pair of characters or ideograph."""
    for match in _WORD.finditer(text):
        word = match.group()
        if not _RUN.match(word):
            if word.strip("_"):
                yield match.start(), word.casefold()
            continue
        for at, piece in _pieces(word):
            if len(piece) == 2 or len(word) == 1 or _IDEOGRAPH.match(piece):
                yield match.start() + at, piece


def words_of(query: str) -> list[str]:
    """The different words of any text, in order, without case; see `indexed_text`.

    Raises:
        InputError: If it has no word, or is not valid Unicode.
    """
    try:
        query.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            "The query is not valid text.", got=error.reason, expected="text in UTF-8"
        ) from error
    words = dict.fromkeys(word for _, word in _terms(query))
    words = {word: None for word in words if not _ENDING.fullmatch(word)} or words
    if not words:
        raise InputError(
            "There is nothing to search for.",
            got=f"{query[:40]!r}, which has no word",
            expected="at least one word",
        )
    return list(words)[:MAX_WORDS]


def fts_query(query: str) -> str:
    """A text in the language of SQLite's FTS5 that matches any word of it; see `words_of`.

    A single letter of a script without spaces stands for all pairs that it begins.
    """
    words = (
        (word, "*" if _RUN.fullmatch(word) and len(word) == 1 else "") for word in words_of(query)
    )
    return " OR ".join(f'"{word}"{star}' for word, star in words)


def snippet_of(text: str, query: str) -> str:
    """Some of a text around the first word of a query in it, on one line.

    At most `SNIPPET_CHARS` characters, with an ellipsis where text was left out.
    """
    words = words_of(query)
    wanted = {word for word in words if len(word) > 1} or set(words)
    at = next((start for start, word in _terms(text) if word in wanted), 0)
    width = SNIPPET_CHARS - 2  # an ellipsis at each end
    start = max(0, min(at - SNIPPET_CHARS // 4, len(text) - width))
    end = min(len(text), start + width)
    line = " ".join(text[start:end].split())
    return f"{'…' if start else ''}{line}{'…' if end < len(text) else ''}"
