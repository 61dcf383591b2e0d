from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from icae.errors import ConfigError
from icae.memory import (
    Memory,
    Provenance,
    Segment,
    TokenFidelity,
    hash_token_ids,
    memory_of_segments,
)

IDS = np.array([5, 9, 2], dtype=np.int64)


def test_segments_are_laid_out_in_rows_of_their_own(build: Callable[..., Memory]) -> None:
    memory = build("abcdefg", "t1 s3 t2 s1")

    assert [s.kind for s in memory.spans] == ["tokens", "slots", "tokens", "slots"]
    assert [(s.slot_start, s.slot_end) for s in memory.spans] == [(0, 0), (0, 2), (2, 2), (2, 3)]
    assert [(s.verbatim_start, s.verbatim_end) for s in memory.spans] == [
        (0, 1),
        (1, 1),
        (1, 3),
        (3, 3),
    ]
    assert [memory.span_source(i) for i in range(4)] == ["a", "bcd", "ef", "g"]
    assert memory.documents[0].sha256 == hashlib.sha256(b"abcdefg").hexdigest()
    assert memory.documents[0].token_ids_sha256 == hash_token_ids(np.frombuffer(b"abcdefg", "u1"))
    assert memory.token_fidelity is not None
    assert memory.fidelity == pytest.approx(memory.token_fidelity.share)


def test_span_ends_where_the_next_token_starts(provenance: Provenance) -> None:
    segments = [Segment.of_tokens(ids, hidden_size=3) for ids in (IDS[:2], IDS[2:])]
    memory = memory_of_segments(
        segments, text=" a🙂 ", offsets=[1, 2, 2], name="x", provenance=provenance
    )
    assert [memory.span_source(i) for i in (0, 1)] == [" a", "🙂 "]


def test_refinement_is_recorded_and_one_unmeasured_segment_leaves_all_unknown(
    provenance: Provenance,
) -> None:
    slots = np.ones((1, 3), dtype=np.float32)
    segment = Segment.of_slots(IDS, slots, ratio=3, token_fidelity=None)
    refined = replace(segment, refine_steps=7, refine_seconds=0.25, written_back=True)
    verbatim = Segment.of_tokens(IDS, hidden_size=3)

    memory = memory_of_segments(
        [refined, verbatim], text="abcdef", offsets=range(6), name="x", provenance=provenance
    )

    assert (memory.spans[0].refine_steps, memory.spans[0].refine_seconds) == (7, 0.25)
    assert memory.spans[0].written_back is True
    assert (memory.spans[0].ratio, memory.spans[0].fidelity) == (3.0, None)
    assert memory.spans[1].fidelity == 1.0
    assert memory.token_fidelity is None
    assert (refined.positions, verbatim.positions) == (1, 3)


def test_segments_of_another_text_are_refused(provenance: Provenance) -> None:
    with pytest.raises(ConfigError):
        memory_of_segments(
            [Segment.of_tokens(IDS, hidden_size=3)],
            text="abcd",
            offsets=range(4),
            name="x",
            provenance=provenance,
        )


def test_fidelity_of_another_length_is_refused(provenance: Provenance) -> None:
    slots = np.ones((1, 3), dtype=np.float32)
    measured = TokenFidelity.of_verbatim(2)
    with pytest.raises(ConfigError, match="does not cover"):
        memory_of_segments(
            [Segment.of_slots(IDS, slots, ratio=3, token_fidelity=measured)],
            text="abc",
            offsets=range(3),
            name="x",
            provenance=provenance,
        )
