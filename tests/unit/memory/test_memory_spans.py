from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from icae.errors import ConfigError
from icae.memory import Memory


@pytest.mark.parametrize(
    "change",
    [
        {"token_end": 0},
        {"token_start": -1},
        {"slot_end": 0},
        {"slot_start": -1},
        {"char_start": 11},
        {"char_start": -1},
        {"document": -1},
        {"ratio": 0.5},
        {"ratio": float("nan")},
        {"fidelity": 1.1},
        {"fidelity": float("nan")},
        {"kind": "words"},
        {"verbatim_end": 1},
        {"verbatim_start": -1, "verbatim_end": -1},
        {"refine_steps": -1},
        {"refine_steps": 2**31},
        {"refine_seconds": -0.5},
        {"refine_seconds": float("inf")},
    ],
    ids=str,
)
def test_span_out_of_range_is_refused(memory: Memory, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(memory.spans[0], **change)


@pytest.mark.parametrize(
    "change",
    [
        {"slot_end": 3},
        {"slot_start": -1, "slot_end": -1},
        {"verbatim_end": 1},
        {"verbatim_end": 3},
        {"verbatim_start": -2, "verbatim_end": 0},
        {"ratio": 2.0},
        {"fidelity": 0.5},
        {"fidelity": None},
        {"refine_steps": 1},
        {"refine_seconds": 0.5},
        {"written_back": True},
    ],
    ids=str,
)
def test_verbatim_span_that_is_no_longer_verbatim_is_refused(
    mixed: Memory, change: dict[str, Any]
) -> None:
    assert mixed.spans[1].kind == "tokens"
    with pytest.raises(ConfigError):
        replace(mixed.spans[1], **change)


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (1, {"verbatim_start": 1, "verbatim_end": 3}),
        (1, {"slot_start": 1, "slot_end": 1}),
        (2, {"verbatim_start": 0, "verbatim_end": 0}),
        (6, {"verbatim_start": 4, "verbatim_end": 6}),
    ],
    ids=str,
)
def test_verbatim_rows_that_do_not_tile_are_refused(
    mixed: Memory, index: int, change: dict[str, Any]
) -> None:
    spans = list(mixed.spans)
    spans[index] = replace(spans[index], **change)
    with pytest.raises(ConfigError, match="does not start at"):
        replace(mixed, spans=tuple(spans))


def test_verbatim_tokens_that_no_span_covers_are_refused(mixed: Memory) -> None:
    ids = np.append(mixed.verbatim_ids, 7)
    with pytest.raises(ConfigError, match="do not cover the verbatim tokens"):
        replace(mixed, verbatim_ids=ids)


def test_slice_may_do_without_a_digest_of_its_ids(memory: Memory) -> None:
    assert replace(memory.documents[0], token_ids_sha256=None).token_ids_sha256 is None


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"token_end": 3}),
        (0, {"token_start": 1}),
        (1, {"token_end": 7}),
        (2, {"token_end": 2}),
        (0, {"slot_end": 1}),
        (0, {"slot_start": 1}),
        (2, {"slot_end": 4}),
        (2, {"slot_end": 6}),
        (1, {"document": 1}),
        (2, {"document": 2}),
        (1, {"char_start": 9, "char_end": 9}),
        (1, {"char_end": 99}),
    ],
    ids=str,
)
def test_spans_that_do_not_tile_are_refused(
    memory: Memory, index: int, change: dict[str, Any]
) -> None:
    spans = list(memory.spans)
    spans[index] = replace(spans[index], **change)
    with pytest.raises(ConfigError):
        replace(memory, spans=tuple(spans))


def test_spans_of_documents_out_of_order_are_refused(memory: Memory) -> None:
    first, second, third = memory.spans
    shuffled = (
        replace(third, slot_start=0, slot_end=2),
        replace(first, slot_start=2, slot_end=4),
        replace(second, slot_start=4, slot_end=5),
    )
    with pytest.raises(ConfigError, match="earlier document"):
        replace(memory, spans=shuffled)


def test_memory_without_spans_is_refused(memory: Memory) -> None:
    with pytest.raises(ConfigError, match="no spans"):
        replace(memory, spans=(), documents=(), slots=memory.slots[:0])


def test_document_without_spans_is_refused(memory: Memory) -> None:
    with pytest.raises(ConfigError, match="do not cover the document"):
        replace(memory, spans=memory.spans[:2], slots=memory.slots[:3])


@pytest.mark.parametrize(
    "change",
    [
        {"source": "another text, not the one hashed"},
        {"chars": 1},
        {"chars": -1, "source": None},
        {"tokens": 0},
        {"sha256": "A" * 64},
        {"token_ids_sha256": "abc"},
        {"name": "undecodable \udcff"},
        {"source": "\ud800"},
    ],
    ids=ascii,
)
def test_document_that_contradicts_itself_is_refused(
    memory: Memory, change: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        replace(memory.documents[0], **change)


def test_span_lengths_count_tokens_and_slots(memory: Memory) -> None:
    assert [(span.tokens, span.slots) for span in memory.spans] == [(4, 2), (2, 1), (3, 2)]
