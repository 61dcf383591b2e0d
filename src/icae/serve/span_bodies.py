"""What a memory holds span by span, as JSON; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from icae.memory import Memory
from icae.memory.critical_words import CriticalWord, critical_words, overlapping_word
from icae.memory.shading import Stretch, shaded_spans
from icae.serve.bodies import Body

TokenStarts = Callable[[Memory, int], Sequence[int] | None]
"""Character at which each token of a document of a memory starts, or None if not known."""


def spans_body(memory: Memory, token_starts: TokenStarts) -> Body:
    """The documents of a memory with their text, and its spans.

    Args:
        memory: The memory.
        token_starts: Tells where tokens start.
    """
    spans = []
    for index, document in enumerate(memory.documents):
        starts = token_starts(memory, index) if document.source is not None else None
        shaded = {} if document.source is None else dict(shaded_spans(memory, index, starts))
        words = critical_words(document.source or "")
        spans += [
            _span_body(memory, at, shaded.get(at, []), words)
            for at, span in enumerate(memory.spans)
            if span.document == index
        ]
    documents = [
        {"name": d.name, "text": d.source, "chars": d.chars, "tokens": d.tokens}
        for d in memory.documents
    ]
    return {"object": "memory.spans", "documents": documents, "spans": spans}


def _span_body(
    memory: Memory, index: int, stretches: Sequence[Stretch], words: Sequence[CriticalWord]
) -> Body:
    span = memory.spans[index]
    return {
        "index": index,
        "document": span.document,
        "kind": {"slots": "slots", "tokens": "verbatim"}[span.kind],
        "start": span.char_start,
        "end": span.char_end,
        "tokens": span.tokens,
        "positions": span.positions,
        "fidelity": span.fidelity,
        "stretches": [
            {
                "start": stretch.start,
                "end": stretch.end,
                "confidence": None if stretch.confidence is None else round(stretch.confidence, 4),
                "lost": stretch.lost,
                "critical": overlapping_word(words, stretch.start, stretch.end) is not None,
            }
            for stretch in stretches
        ],
    }
