from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import icae
from icae.errors import ConfigError, IncompatibleMemoryError, InputError
from icae.memory import Memory


def test_totals_cover_all_documents(memory: Memory) -> None:
    assert (memory.tokens, memory.slot_count, memory.ratio) == (9, 5, 9 / 5)


def test_fidelity_is_the_mean_over_tokens(memory: Memory) -> None:
    assert memory.fidelity == pytest.approx((4 * 0.5 + 2 * 1.0 + 3 * 0.25) / 9)


def test_fidelity_is_unknown_if_one_span_was_not_measured(memory: Memory) -> None:
    spans = (replace(memory.spans[0], fidelity=None), *memory.spans[1:])
    assert replace(memory, spans=spans).fidelity is None


def test_span_source_is_cut_at_characters_of_its_own_document(memory: Memory) -> None:
    first, second = (document.source for document in memory.documents)
    assert first is not None
    assert [memory.span_source(i) for i in range(3)] == [first[:10], first[10:], second]
    assert memory.span_source(0) == "Der Fluß 𝔘"


@pytest.mark.parametrize("index", [-1, 3])
def test_span_source_of_a_missing_span_is_refused(memory: Memory, index: int) -> None:
    with pytest.raises(InputError, match=f"span {index}"):
        memory.span_source(index)


def test_without_source_drops_the_text_and_nothing_else(memory: Memory) -> None:
    bare = memory.without_source()
    assert [document.source for document in bare.documents] == [None, None]
    assert bare.span_source(0) is None
    assert bare != memory
    assert replace(bare, documents=memory.documents) == memory


def test_sum_shifts_documents_and_slots_of_the_second(memory: Memory) -> None:
    both = memory + memory
    assert np.array_equal(both.slots, np.concatenate([memory.slots, memory.slots]))
    assert both.documents == memory.documents * 2
    assert [span.document for span in both.spans] == [0, 0, 1, 2, 2, 3]
    assert [span.slot_end for span in both.spans] == [2, 3, 5, 7, 8, 10]
    assert [both.span_source(i) for i in (0, 3)] == [memory.span_source(0)] * 2
    assert (both.tokens, both.fidelity) == (18, memory.fidelity)


def test_sum_does_not_depend_on_grouping(memory: Memory) -> None:
    other = replace(memory, slots=memory.slots + 1)
    assert (memory + other) + memory == memory + (other + memory)


def test_sum_of_memories_of_different_adapters_is_refused(memory: Memory) -> None:
    provenance = replace(memory.provenance, adapter="other", adapter_hash="c" * 64)
    other = replace(memory, provenance=provenance)
    with pytest.raises(IncompatibleMemoryError, match=r"(?s)erste\.txt and 1 more.*adapter other"):
        _ = memory + other


def test_sum_with_something_else_is_a_type_error(memory: Memory) -> None:
    with pytest.raises(TypeError):
        _ = memory + 1  # type: ignore[operator]


def test_memories_are_equal_by_value(memory: Memory) -> None:
    assert memory == replace(memory, slots=memory.slots.copy())
    changed = memory.slots.copy()
    changed[4, 2] += 1e-6
    assert memory != replace(memory, slots=changed)
    assert memory != replace(memory, created_by="someone else")
    assert memory != "a memory"


def test_memory_has_no_hash(memory: Memory) -> None:
    with pytest.raises(TypeError):
        hash(memory)


def test_fields_cannot_be_reassigned(memory: Memory) -> None:
    with pytest.raises(FrozenInstanceError):
        memory.created_by = "x"  # type: ignore[misc]


def test_created_by_names_this_version_unless_given(memory: Memory) -> None:
    made = Memory(
        slots=memory.slots,
        spans=memory.spans,
        documents=memory.documents,
        provenance=memory.provenance,
    )
    assert made.created_by == f"icae {icae.__version__}"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_slots_that_are_not_finite_are_refused(memory: Memory, value: float) -> None:
    slots = memory.slots.copy()
    slots[3, 1] = value
    with pytest.raises(ConfigError, match="1 of 5 slots"):
        replace(memory, slots=slots)


@pytest.mark.parametrize(
    "slots",
    [
        np.zeros((5, 3)),
        np.zeros((5, 3, 1), dtype=np.float32),
        np.zeros((5, 4), dtype=np.float32),
        np.zeros((4, 3), dtype=np.float32),
        [[0.0] * 3] * 5,
    ],
    ids=["float64", "three axes", "too wide", "too few", "a list"],
)
def test_slots_of_another_kind_are_refused(memory: Memory, slots: object) -> None:
    with pytest.raises(ConfigError):
        replace(memory, slots=slots)


def test_repr_shows_neither_text_nor_slots(memory: Memory) -> None:
    assert "Fluß" not in repr(memory)
    assert "slots=array" not in repr(memory)


@pytest.mark.parametrize(
    "ids",
    [
        np.zeros(5, dtype=np.int32),
        np.zeros((5, 1), dtype=np.int64),
        np.array([1, 2, 3, 4, -1]),
        np.array([1, 2, 3, 4, 2**32]),
        [1, 2, 3, 4, 5],
    ],
    ids=["int32", "two axes", "negative", "too large", "a list"],
)
def test_verbatim_ids_of_another_kind_are_refused(mixed: Memory, ids: object) -> None:
    with pytest.raises(ConfigError, match="verbatim token id"):
        replace(mixed, verbatim_ids=ids)


def test_memory_may_be_all_verbatim(build: Callable[..., Memory]) -> None:
    memory = build("abcde", "t2 t3")
    assert (memory.slot_count, memory.positions, memory.ratio, memory.fidelity) == (0, 5, 1.0, 1.0)
    assert memory.slots.shape == (0, 3)


def test_memories_with_other_verbatim_tokens_or_confidence_differ(mixed: Memory) -> None:
    fidelity = mixed.token_fidelity
    assert fidelity is not None
    assert mixed == replace(mixed, verbatim_ids=mixed.verbatim_ids.copy())
    assert mixed != replace(mixed, verbatim_ids=mixed.verbatim_ids + 1)
    confidence = fidelity.confidence.copy()
    confidence[0] ^= 1
    assert mixed != replace(mixed, token_fidelity=replace(fidelity, confidence=confidence))
    assert mixed != replace(mixed, token_fidelity=None)
