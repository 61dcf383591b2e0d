"""Passages: runs of spans long enough to be found by their words."""

from __future__ import annotations

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
