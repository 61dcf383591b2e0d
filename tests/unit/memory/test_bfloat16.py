from __future__ import annotations

import numpy as np
import pytest

from icae.memory.bfloat16 import from_bfloat16_bits, to_bfloat16_bits


def test_every_finite_bfloat16_value_round_trips_bit_for_bit():
    bits = np.arange(2**16, dtype=np.uint16)
    finite = bits[(bits & 0x7F80) != 0x7F80].reshape(2, -1)
    assert np.array_equal(to_bfloat16_bits(from_bfloat16_bits(finite)), finite)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1.0 + 2**-8, 1.0),  # a tie, the even neighbour is below
        (1.0 + 3 * 2**-8, 1.0 + 2**-6),  # a tie, the even neighbour is above
        (1.0 + 2**-8 + 2**-20, 1.0 + 2**-7),  # just above a tie
        (-(1.0 + 2**-8), -1.0),
        (2.0 - 2**-10, 2.0),  # the carry reaches the exponent
        (2**-133, 2**-133),  # the smallest subnormal
    ],
)
def test_rounding_is_to_nearest_with_ties_to_even(value, rounded):
    bits = to_bfloat16_bits(np.array([value], dtype=np.float32))
    assert from_bfloat16_bits(bits).tolist() == [rounded]
