"""Memories of words, without a model: a word is a token."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from icae.config.spans import plan_spans
from icae.config.types import KeyValueShape
from icae.memory import (
    Embeddings,
    KeyValueSlots,
    Memory,
    MemoryDocument,
    Provenance,
    Span,
    TokenFidelity,
    hash_token_ids,
)
from icae.memory.provenance import KEY_VALUE_DTYPE, KeyValueDtype


def make_provenance(adapter_hash: str = "a" * 64, *, hidden_size: int = 3) -> Provenance:
    return Provenance(
        base_model="tiny-base",
        base_hash="b" * 64,
        adapter="tiny-adapter",
        adapter_hash=adapter_hash,
        tokenizer_hash="t" * 64,
        layout="uniform-encoder",
        hidden_size=hidden_size,
        key_values=None,
        slot_dtype="float32",
    )


def all_held(span: int, tokens: int) -> TokenFidelity:
    return TokenFidelity.of_verbatim(tokens)


def word_memory(
    text: str,
    *,
    name: str = "doc",
    ratio: float = 4.0,
    span_length: int = 32,
    provenance: Provenance | None = None,
    held: Callable[[int, int], TokenFidelity | float | None] = all_held,
    seed: int | list[int] | None = None,
) -> Memory:
    """A memory of one document, its slots random.

    Args:
        held: Fidelity of a span, by its index and its number of tokens: of every token, as
            one figure, or None if it was not measured.
        seed: Of the slots; by default the length of the text.
    """
    provenance = provenance or make_provenance()
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    edges = [0, *starts[1:], len(text)]
    rng = np.random.default_rng(len(text) if seed is None else seed)
    spans = []
    for i, plan in enumerate(plan_spans(len(starts), span_length=span_length, ratio=ratio)):
        slots = rng.normal(size=(plan.slots, provenance.hidden_size)).astype(np.float32)
        known = held(i, plan.length)
        measured = known if isinstance(known, TokenFidelity) else None
        spans.append(
            Span(
                token_start=plan.token_start,
                token_end=plan.token_end,
                char_start=edges[plan.token_start],
                char_end=edges[plan.token_end],
                payload=Embeddings(slots_KD=slots),
                ratio=ratio,
                fidelity=known.share if isinstance(known, TokenFidelity) else known,
                token_fidelity=measured,
            )
        )
    ids = hash_token_ids(np.arange(len(starts), dtype=np.int64))
    document = MemoryDocument.of_text(text, spans, name=name, token_ids_sha256=ids)
    return Memory(documents=(document,), provenance=provenance)


def with_spans(memory: Memory, spans: Iterable[Span]) -> Memory:
    """The memory with other spans in place of its own, as many in every document."""
    rest = iter(spans)
    documents = [
        replace(document, spans=tuple(next(rest) for _ in document.spans))
        for document in memory.documents
    ]
    return replace(memory, documents=tuple(documents))


def in_key_values(memory: Memory, dtype: KeyValueDtype = KEY_VALUE_DTYPE) -> Memory:
    """The memory with random keys and values in place of its slots; 2 layers of 1 head of 3."""
    rng = np.random.default_rng(0)
    shape = KeyValueShape(layers=2, heads=1, width=3)
    provenance = replace(memory.provenance, key_values=shape, slot_dtype=dtype)
    documents = []
    for document in memory.documents:
        spans = []
        for span in document.spans:
            if span.kind == "slots":
                pairs = rng.normal(size=(span.slots, *shape.axes)).astype(np.float32)
                payload = KeyValueSlots(pairs_KY2HW=pairs, dtype=dtype)
                span = replace(span, payload=payload, recall=0.25)
            spans.append(span)
        documents.append(replace(document, spans=tuple(spans)))
    return replace(memory, documents=tuple(documents), provenance=provenance)


def filler(words: int, *, word: str = "filler") -> str:
    """As many different words."""
    return " ".join(f"{word}{i}" for i in range(words))
