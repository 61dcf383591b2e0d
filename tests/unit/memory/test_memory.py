"""A memory and its parts: figures, equality, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import icae
from icae.errors import ConfigError, IncompatibleMemoryError, InputError
from icae.memory import Embeddings, Memory, Span, TokenFidelity, Verbatim
from word_memories import with_spans


def test_totals_cover_all_documents(memory, mixed, build):
    assert (memory.tokens, memory.slot_count, memory.ratio) == (9, 5, 9 / 5)
    assert memory.slots.shape == (5, 3)
    assert (mixed.tokens, mixed.slot_count, mixed.verbatim_tokens) == (16, 7, 5)
    assert (mixed.positions, mixed.ratio) == (12, 16 / 12)
    assert bytes(mixed.verbatim_ids.tolist()) == b"deKOP"
    exact = build("abcde", "t2 t3")
    assert (exact.slot_count, exact.positions, exact.ratio, exact.fidelity) == (0, 5, 1.0, 1.0)
    assert exact.slots.shape == (0, 3)


def test_spans_of_all_documents_are_counted_through(mixed):
    assert mixed.spans == mixed.documents[0].spans + mixed.documents[1].spans
    assert mixed.document_of == (0, 0, 0, 0, 1, 1, 1)
    assert (mixed.span_range(0), mixed.span_range(-1)) == (range(4), range(4, 7))
    assert [(span.tokens, span.slots, span.positions) for span in mixed.spans] == [
        (3, 2, 2),
        (2, 0, 2),
        (4, 2, 2),
        (1, 1, 1),
        (1, 0, 1),
        (3, 2, 2),
        (2, 0, 2),
    ]
    assert mixed.spans[1].slots_KD.size == mixed.spans[0].verbatim_ids.size == 0
    with pytest.raises(InputError, match="no such document"):
        mixed.span_range(2)


def test_fidelity_is_the_mean_over_tokens(memory):
    assert memory.fidelity == pytest.approx((4 * 0.5 + 2 * 1.0 + 3 * 0.25) / 9)
    unknown = replace(memory.spans[0], fidelity=None)
    assert with_spans(memory, (unknown, *memory.spans[1:])).fidelity is None


def test_token_fidelity_is_known_where_that_of_every_span_is(mixed):
    known = mixed.token_fidelity
    assert known is not None
    assert known.share == pytest.approx(mixed.fidelity)
    unknown = replace(mixed.spans[0], token_fidelity=None)
    assert with_spans(mixed, (unknown, *mixed.spans[1:])).token_fidelity is None


def test_span_source_is_cut_at_characters_of_its_own_document(memory):
    first, second = (document.source for document in memory.documents)
    assert first is not None
    assert [memory.span_source(i) for i in range(3)] == [first[:10], first[10:], second]
    assert memory.span_source(0) == "Der Fluß 𝔘"
    for index in (-1, 3):
        with pytest.raises(InputError, match=f"span {index}"):
            memory.span_source(index)


def test_without_source_drops_the_text_and_nothing_else(memory):
    bare = memory.without_source()
    assert [document.source for document in bare.documents] == [None, None]
    assert (bare.span_source(0), bare.spans) == (None, memory.spans)


def test_sum_has_the_documents_of_both_as_they_are(memory):
    both = memory + memory
    assert both.documents == memory.documents * 2
    assert (both.tokens, both.fidelity) == (18, memory.fidelity)
    with pytest.raises(TypeError):
        _ = memory + 1  # type: ignore[operator]


def test_sum_of_memories_of_different_adapters_is_refused(memory):
    provenance = replace(memory.provenance, adapter="other", adapter_hash="c" * 64)
    other = replace(memory, provenance=provenance)
    with pytest.raises(IncompatibleMemoryError, match=r"(?s)erste\.txt and 1 more.*adapter other"):
        _ = memory + other


def test_memories_are_equal_by_value(mixed):
    first, second = mixed.spans[:2]
    slots, ids, fidelity = first.slots_KD.copy(), second.verbatim_ids.copy(), first.token_fidelity
    assert fidelity is not None

    def changed(span: Span, **values: Any) -> Memory:
        return with_spans(mixed, [replace(s, **values) if s is span else s for s in mixed.spans])

    assert mixed == changed(first, payload=Embeddings(slots_KD=slots))
    assert mixed == changed(second, payload=Verbatim(ids=ids))
    assert mixed != changed(first, payload=Embeddings(slots_KD=slots + np.float32(1e-6)))
    assert mixed != changed(second, payload=Verbatim(ids=ids + 1))
    assert mixed != changed(first, token_fidelity=None)
    other = replace(fidelity, confidence=fidelity.confidence ^ 1)
    assert mixed != changed(first, token_fidelity=other)
    assert mixed != replace(mixed, created_by="someone else")
    assert mixed != "a memory"
    with pytest.raises(TypeError):
        hash(mixed)


def test_created_by_names_this_version_unless_given(memory):
    made = Memory(documents=memory.documents, provenance=memory.provenance)
    assert made.created_by == f"icae {icae.__version__}"


def test_repr_shows_neither_text_nor_slots(memory):
    told = f"{memory.tokens} tokens in {len(memory.spans)} spans, {memory.positions} positions"
    assert told in repr(memory)
    assert "Fluß" not in repr(memory)
    assert len(repr(memory)) < 160


@pytest.mark.parametrize(
    ("form", "values"),
    [
        (Embeddings, np.zeros((5, 3))),
        (Embeddings, np.zeros((5, 3, 1), dtype=np.float32)),
        (Embeddings, [[0.0] * 3] * 5),
        (Embeddings, np.array([[0.0, np.nan]], dtype=np.float32)),
        (Embeddings, np.array([[np.inf, 0.0], [0.0, 0.0]], dtype=np.float32)),
        (Verbatim, np.zeros(5, dtype=np.int32)),
        (Verbatim, np.zeros((5, 1), dtype=np.int64)),
        (Verbatim, np.array([1, -1])),
        (Verbatim, np.array([1, 2**32])),
        (Verbatim, [1, 2]),
    ],
)
def test_payload_of_another_kind_is_refused(form, values):
    field = "slots_KD" if form is Embeddings else "ids"
    with pytest.raises(ConfigError, match=r"matrix of float32|1 of \d slots|verbatim token id"):
        form(**{field: values})


def test_slots_of_another_width_than_the_decoder_are_refused(memory):
    wide = replace(memory.spans[0], payload=Embeddings(slots_KD=np.ones((2, 4), np.float32)))
    with pytest.raises(ConfigError, match="another width"):
        with_spans(memory, (wide, *memory.spans[1:]))


UNSURE = TokenFidelity(
    reproduced=np.ones(2, dtype=np.bool_), confidence=np.array([255, 254], np.uint8)
)


@pytest.mark.parametrize(
    ("span", "change"),
    [
        (0, {"token_end": 0}),
        (0, {"token_start": -1}),
        (0, {"char_start": 11}),
        (0, {"char_start": -1}),
        (0, {"payload": Embeddings(slots_KD=np.zeros((0, 3), dtype=np.float32))}),
        (0, {"ratio": 0.5}),
        (0, {"ratio": float("nan")}),
        (0, {"fidelity": 1.1}),
        (0, {"fidelity": float("nan")}),
        (0, {"refine_steps": -1}),
        (0, {"refine_steps": 2**31}),
        (0, {"refine_seconds": -0.5}),
        (0, {"refine_seconds": float("inf")}),
        (0, {"token_fidelity": TokenFidelity.of_verbatim(2)}),
        (0, {"token_fidelity": TokenFidelity.of_verbatim(3), "fidelity": 0.5}),
        # What is no longer verbatim:
        (1, {"payload": Verbatim(ids=np.array([1], dtype=np.int64))}),
        (1, {"ratio": 2.0}),
        (1, {"fidelity": 0.5}),
        (1, {"refine_steps": 1}),
        (1, {"written_back": True}),
        (1, {"token_fidelity": UNSURE}),
    ],
    ids=str,
)
def test_span_that_contradicts_itself_is_refused(mixed, span, change):
    with pytest.raises(ConfigError):
        replace(mixed.spans[span], **change)


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"token_end": 3}),
        (0, {"token_start": 1}),
        (1, {"token_start": 5}),
        (1, {"char_start": 9, "char_end": 9}),
        (1, {"char_end": 99}),
    ],
    ids=str,
)
def test_spans_that_do_not_tile_their_document_are_refused(memory, index, change):
    spans = list(memory.spans)
    spans[index] = replace(spans[index], **change)
    with pytest.raises(ConfigError):
        with_spans(memory, spans)


def test_memory_without_documents_and_document_without_spans_are_refused(memory):
    with pytest.raises(ConfigError, match="no documents"):
        replace(memory, documents=())
    with pytest.raises(ConfigError, match="no spans"):
        replace(memory.documents[0], spans=())


@pytest.mark.parametrize(
    "change",
    [
        {"source": "another text, not the one hashed"},
        {"chars": 1},
        {"chars": -1, "source": None},
        {"sha256": "A" * 64},
        {"token_ids_sha256": "abc"},
        {"name": "undecodable \udcff"},
        {"source": "\ud800"},
    ],
    ids=ascii,
)
def test_document_that_contradicts_itself_is_refused(memory, change):
    with pytest.raises(ConfigError):
        replace(memory.documents[0], **change)
