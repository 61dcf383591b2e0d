"""Refining a memory that exists: its weak spans get better slots, the rest stays as it is.

The memory is its own checkpoint: a span that has the fidelity is not touched, so a run
that was stopped goes on where it left off.
"""

from __future__ import annotations

from collections.abc import Iterator

from icae.compression.adaptive import AdaptiveCompressor, holds
from icae.compression.compressor import OnProgress, with_spans
from icae.compression.refinement import RefineConfig
from icae.decode.reconstruction import original_ids
from icae.errors import InputError
from icae.memory import Memory


def weak_spans(memory: Memory, target: float) -> list[int]:
    """Indices of the slot spans of which it is not known that they have a fidelity (0..1)."""
    return [
        i
        for i, span in enumerate(memory.spans)
        if span.kind != "tokens" and not holds(span, target)
    ]


def refine_memory(
    adaptive: AdaptiveCompressor,
    memory: Memory,
    config: RefineConfig,
    *,
    on_step: OnProgress = lambda done, total: None,
) -> Iterator[Memory]:
    """Refine the slots of the spans that fall short of `config.target`.

    Args:
        adaptive: Refines spans.
        memory: A memory made by its model; its text must be kept.
        config: When to stop and what to weigh.
        on_step: Called after each step, with (steps taken or saved, most steps).

    Yields:
        The memory after each span that is done, so that it can be saved; where its recall was
        known, at last with that of the new slots.

    Raises:
        InputError: If the text of a weak span was not kept.
    """
    originals, asked = (
        original_ids(adaptive.compressor.tokenizer, memory),
        memory.recall is not None,
    )
    spans = {i: memory.spans[i] for i in weak_spans(memory, config.target)}
    ids = {}
    for i, span in spans.items():
        document = memory.document_of[i]
        if document not in originals:
            raise InputError(
                "Only a memory that keeps its text can be refined.",
                got=f"no text for the document {memory.documents[document].name!r}",
                expected="the text that the slots stand for",
                fix="Compress the document again without --no-source.",
            )
        ids[i] = originals[document][span.token_start : span.token_end]
    for i, better in adaptive.refined(spans, ids, config, on_step=on_step):
        memory = with_spans(memory, {i: better})
        yield memory
    if asked and spans:
        yield adaptive.compressor.with_recall(memory, originals)
