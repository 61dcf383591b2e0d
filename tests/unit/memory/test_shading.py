from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from icae.memory import TokenFidelity
from icae.memory.shading import shaded_spans
from word_memories import with_spans


def test_stretches_tile_the_text_of_every_span(build):
    memory = build("xyz", "s3", seed=1) + build("abcdefghij", "s3 t2 s4 s1")
    fidelity = memory.token_fidelity
    assert fidelity is not None
    seen = []
    for index, stretches in shaded_spans(memory, 1, range(10)):
        assert {s.span for s in stretches} == {index}
        seen += stretches
    assert [(s.start, s.end) for s in seen] == [(i, i + 1) for i in range(10)]
    assert [s.span for s in seen] == [1] * 3 + [2] * 2 + [3] * 4 + [4]
    assert [s.lost for s in seen] == (~fidelity.reproduced[3:]).tolist()
    assert [s.confidence for s in seen] == fidelity.probabilities[3:].tolist()


def test_tokens_that_share_a_character_are_as_weak_as_the_weakest(build):
    # Tokens: "a", then three bytes of one character, the last in the second span, then "b".
    memory = build("a🙂🙂🙂b", "s3 s2")
    measured = TokenFidelity(
        reproduced=np.array([True, False, True, True, True]),
        confidence=np.array([255, 51, 102, 204, 255], np.uint8),
    )
    spans = []
    for span, chars in zip(memory.spans, ((0, 1), (1, 3)), strict=True):
        own = measured.part(span.token_start, span.token_end)
        placed = replace(span, char_start=chars[0], char_end=chars[1])
        spans.append(replace(placed, fidelity=None, token_fidelity=own))

    shaded = dict(shaded_spans(with_spans(memory, spans), 0, [0, 1, 1, 1, 2]))

    told = [(s.start, s.end, s.confidence, s.lost) for s in (*shaded[0], *shaded[1])]
    assert told == [(0, 1, 1.0, False), (1, 2, pytest.approx(0.2), True), (2, 3, 1.0, False)]


def test_spans_are_shaded_as_a_whole_where_tokens_are_not_known(build):
    memory = build("abcde", "s3 t2")
    unmeasured = with_spans(memory, [replace(span, token_fidelity=None) for span in memory.spans])
    for one, offsets in ((memory, None), (unmeasured, range(5))):
        spans = dict(shaded_spans(one, 0, offsets))
        assert [len(stretches) for stretches in spans.values()] == [1, 1]
        assert spans[0][0].confidence == memory.spans[0].fidelity


def test_places_that_do_not_fit_the_spans_stay_within_them(build):
    memory = build("abcdef", "s3 s3")
    for _, stretches in shaded_spans(memory, 0, [0, 9, 9, 0, 0, 1]):
        assert all(0 <= s.start < s.end <= 6 for s in stretches)
