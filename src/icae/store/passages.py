"""Passages: runs of spans long enough to be found by their words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from icae.memory import Memory

PASSAGE_TOKENS = 128
"""A passage is closed once it has as many tokens."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Consecutive spans of one document.

    Attributes:
        document: Index of the document in the memory.
        document_name: Its name there.
        span_first: First span in the memory.
        span_end: One past the last span.
        char_start: First character (code point) in the document.
        char_end: One past the last character.
        positions: Decoder positions that its spans take.
        text: Its text.
    """

    document: int
    document_name: str
    span_first: int
    span_end: int
    char_start: int
    char_end: int
    positions: int
    text: str


def passages_of(memory: Memory) -> list[Passage]:
    """Cut a memory into passages.

    Args:
        memory: The memory.

    Returns:
        Passages that cover every document whose text was kept, in order. Each has the
        spans it takes to reach `PASSAGE_TOKENS` tokens; the last of a document may be
        shorter.
    """
    passages = []
    for first, end in _runs(memory):
        start, last = memory.spans[first], memory.spans[end - 1]
        document = memory.documents[start.document]
        if document.source is None:
            continue
        passages.append(
            Passage(
                document=start.document,
                document_name=document.name,
                span_first=first,
                span_end=end,
                char_start=start.char_start,
                char_end=last.char_end,
                positions=sum(span.positions for span in memory.spans[first:end]),
                text=document.source[start.char_start : last.char_end],
            )
        )
    return passages


def _runs(memory: Memory) -> Iterator[tuple[int, int]]:
    """First span and one past the last span of each passage."""
    first, tokens = 0, 0
    for index, span in enumerate(memory.spans):
        if index > first and span.document != memory.spans[first].document:
            yield first, index
            first, tokens = index, 0
        tokens += span.tokens
        if tokens >= PASSAGE_TOKENS:
            yield first, index + 1
            first, tokens = index + 1, 0
    if first < len(memory.spans):
        yield first, len(memory.spans)
