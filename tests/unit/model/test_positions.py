from __future__ import annotations

import pytest

from icae.model.positions import decoder_positions, encoder_positions

# 8 tokens in 2 slots: chunks 0..3 and 4..7, centres 1 and 5.
# 5 tokens in 2 slots: chunks 0..1 and 2..4, centres 0 and 3.


@pytest.mark.parametrize(
    ("layout", "length", "slots", "memory_tokens"),
    [
        ("default", 5, 2, [5, 6]),
        ("uniform-encoder", 8, 2, [1, 5]),
        ("uniform-encoder", 5, 2, [0, 3]),
        ("uniform", 5, 2, [0, 3]),
        ("uniform-encoder", 3, 3, [0, 1, 2]),
        ("uniform-encoder", 7, 1, [3]),
    ],
)
def test_encoder_positions_match_hand_computed_ones(layout, length, slots, memory_tokens):
    assert encoder_positions(layout, length, slots) == [*range(length), *memory_tokens]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("default", [0, 1, 2, 3, 4, 5, 6]),
        ("uniform-encoder", [0, 1, 2, 3, 4, 5, 6]),
        # Second span: centres 0 and 3, behind the 8 tokens of the first; 13 tokens in all.
        ("uniform", [1, 5, 8, 11, 13, 14, 15]),
    ],
)
def test_decoder_positions_of_two_spans_match_hand_computed_ones(layout, expected):
    assert decoder_positions(layout, [(8, 2), (5, 2)], 3) == expected


def test_front_places_shift_the_slots_and_the_prompt():
    assert decoder_positions("uniform-encoder", [(8, 2)], 2, front=3) == [0, 1, 2, 3, 4, 5, 6]
    assert decoder_positions("uniform", [(8, 2)], 2, front=3) == [0, 1, 2, 4, 8, 11, 12]
