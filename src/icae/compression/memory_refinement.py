"""Refining a memory that exists: its weak spans get better slots, the rest stays as it is.

The memory is its own checkpoint: a span that has the fidelity is not touched, so a run
that was stopped goes on where it left off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from icae.compression.adaptive import AdaptiveCompressor, OnProgress
from icae.compression.refinement import RefineConfig
from icae.config.spans import needs_every_token
from icae.decode.reconstruction import original_ids
from icae.errors import InputError
from icae.memory import Memory, MemorySpan, Segment, TokenFidelity, segment_of_span
from icae.memory.spans import token_offsets


def weak_spans(memory: Memory, target: float) -> list[int]:
    """Indices of the slot spans of which it is not known that they have a fidelity.

    Where that leaves room for no wrong token, they must have been written back freely.

    Args:
        memory: The memory.
        target: Fidelity wanted (0..1).
    """
    return [
        i
        for i, span in enumerate(memory.spans)
        if span.kind == "slots" and not _holds(span, target)
    ]


def _holds(span: MemorySpan, target: float) -> bool:
    if needs_every_token(span.tokens, target):
        return span.written_back is True
    return span.fidelity is not None and span.fidelity >= target


def refine_memory(
    adaptive: AdaptiveCompressor,
    tokenizer: Any,
    memory: Memory,
    config: RefineConfig,
    *,
    on_step: OnProgress = lambda done, total: None,
) -> Iterator[Memory]:
    """Refine the slots of the spans that fall short of `config.target`.

    Args:
        adaptive: Refines segments.
        tokenizer: The base model's tokenizer.
        memory: A memory made by this model; its text must be kept.
        config: When to stop and what to weigh.
        on_step: Called after each step, with (steps taken or saved, most steps).

    Yields:
        The memory after each span that is done, so that it can be saved.

    Raises:
        InputError: If the text of a weak span was not kept.
    """
    originals = original_ids(tokenizer, memory)
    segments: dict[int, Segment] = {}
    for i in weak_spans(memory, config.target):
        span = memory.spans[i]
        if span.document not in originals:
            raise InputError(
                "Only a memory that keeps its text can be refined.",
                got=f"no text for the document {memory.documents[span.document].name!r}",
                expected="the text that the slots stand for",
                fix="Compress the document again without --no-source.",
            )
        ids = originals[span.document][span.token_start : span.token_end]
        segments[i] = segment_of_span(memory, i, ids)
    for i, segment in adaptive.refined(segments, config, on_step=on_step):
        memory = _with_segment(memory, i, segment)
        yield memory


def _with_segment(memory: Memory, index: int, segment: Segment) -> Memory:
    """The memory with the slots and figures of one span replaced."""
    assert segment.token_fidelity is not None
    span = memory.spans[index]
    slots = memory.slots.copy()
    slots[span.slot_start : span.slot_end] = segment.slots_KD
    spans = list(memory.spans)
    spans[index] = replace(
        span,
        fidelity=segment.token_fidelity.share,
        refine_steps=segment.refine_steps,
        refine_seconds=segment.refine_seconds,
        written_back=segment.written_back,
    )
    tokens = memory.token_fidelity
    if tokens is not None:
        start, end = token_offsets(memory.spans)[index : index + 2]
        reproduced, confidence = tokens.reproduced.copy(), tokens.confidence.copy()
        reproduced[start:end] = segment.token_fidelity.reproduced
        confidence[start:end] = segment.token_fidelity.confidence
        tokens = TokenFidelity(
            reproduced=np.ascontiguousarray(reproduced), confidence=np.ascontiguousarray(confidence)
        )
    return replace(memory, slots=slots, spans=tuple(spans), token_fidelity=tokens)
