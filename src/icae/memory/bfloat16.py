"""bfloat16 as NumPy sees it: the upper 16 bits of a float32, of any shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from icae.config.types import FloatArray


def to_bfloat16_bits(values: FloatArray) -> NDArray[np.uint16]:
    """Bits of finite float32 values rounded to bfloat16, to the nearest, ties to even.

    Little-endian uint16. A value too large for bfloat16 becomes infinity.
    """
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    # Half of the last place kept, less one where that place is even: a tie rounds to even.
    rounding = (bits >> np.uint32(16)) & np.uint32(1)
    rounding += np.uint32(0x7FFF)
    rounded: NDArray[np.uint16] = ((bits + rounding) >> np.uint32(16)).astype("<u2")
    return rounded


def from_bfloat16_bits(bits: NDArray[np.uint16]) -> FloatArray:
    """Widen the bits of bfloat16 values, uint16, to float32, exactly."""
    return (bits.astype("<u4") << np.uint32(16)).view("<f4").astype(np.float32, copy=False)
