"""Keys and values of some slots as a file keeps them: bfloat16, or codes of 8 bits.

A code counts steps; the size of a step is that of its layer, of keys or of values, of its head
and its channel, the same for all slots of a run.

Shapes: K slots, Y layers, H key-value heads, W head width.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from icae.config.parsing import check
from icae.config.types import FloatArray
from icae.memory.bfloat16 import from_bfloat16_bits, to_bfloat16_bits
from icae.memory.checks import check_array
from icae.memory.container import Buffer
from icae.memory.provenance import KeyValueDtype

CODES = "key_values"
"""Name of the tensor of a file that keeps the codes, a row for each slot."""

STEPS = "key_value_steps"
"""Name of the tensor that keeps the steps, a row for each run."""

LARGEST_CODE = 127

DIGEST_BYTES = 16
"""Bytes of the digest that stands for a slot."""

_SIGN = 0x8000
_INFINITY = 0x7F80
_LARGEST_STEP = int((np.finfo(np.float32).max / np.float32(LARGEST_CODE)).view(np.uint32)) >> 16
"""Bits of the largest step of which 127 are finite; those of negative steps are larger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyValueRun:
    """Keys, as if at position 0, and values of slots that share their steps.

    Attributes:
        codes_KY2HW: bfloat16 as its bits, uint16, or int8 within -127..127.
        steps_Y2HW: What a code of 1 stands for, bfloat16 as its bits; None of bfloat16 codes.

    Raises:
        ConfigError: If they are no finite numbers of these forms.
    """

    codes_KY2HW: NDArray[np.uint16] | NDArray[np.int8] = field(repr=False)
    steps_Y2HW: NDArray[np.uint16] | None = field(repr=False, default=None)

    def __post_init__(self) -> None:
        codes, steps = self.codes_KY2HW, self.steps_Y2HW
        dtype = np.uint16 if steps is None else np.int8
        check_array("The keys and values have another form.", codes, dtype, 5)
        check(codes.shape[2] == 2, "Slots lack keys or values.", codes.shape, "2 on axis 2")
        if steps is None:
            # The bits of a larger number are larger, but for its sign.
            finite = int((codes & (_SIGN - 1)).max(initial=0)) < _INFINITY
        else:
            check_array("The steps have another form.", steps, np.uint16, 4)
            check(steps.shape == codes.shape[1:], "Steps are missing.", steps.shape, "all channels")
            finite = int(codes.min(initial=0)) >= -LARGEST_CODE
            finite = finite and int(steps.max(initial=0)) <= _LARGEST_STEP
        check(finite, "The keys and values of some slots are not finite.", codes.shape, "numbers")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyValueRun):
            return NotImplemented
        if self.steps_Y2HW is None or other.steps_Y2HW is None:
            same = self.steps_Y2HW is other.steps_Y2HW
        else:
            same = np.array_equal(self.steps_Y2HW, other.steps_Y2HW)
        return same and np.array_equal(self.codes_KY2HW, other.codes_KY2HW)

    def __len__(self) -> int:
        return len(self.codes_KY2HW)

    @classmethod
    def of(cls, pairs_KY2HW: FloatArray, dtype: KeyValueDtype) -> KeyValueRun:
        """Round finite float32 numbers to what a file keeps, to the nearest."""
        if dtype == "bfloat16":
            return cls(codes_KY2HW=to_bfloat16_bits(pairs_KY2HW))
        largest_Y2HW = np.abs(pairs_KY2HW).max(axis=0)
        steps = to_bfloat16_bits(largest_Y2HW / np.float32(LARGEST_CODE))
        # Never rounded down: the largest number has a code.
        steps += from_bfloat16_bits(steps) * np.float32(LARGEST_CODE) < largest_Y2HW
        wide = from_bfloat16_bits(steps)
        codes = np.rint(pairs_KY2HW / np.where(wide > 0, wide, np.float32(1)))
        return cls(codes_KY2HW=codes.astype(np.int8), steps_Y2HW=steps)

    @property
    def dtype(self) -> KeyValueDtype:
        """How the numbers are kept."""
        return "bfloat16" if self.steps_Y2HW is None else "int8"

    @property
    def pairs_KY2HW(self) -> FloatArray:  # noqa: N802 (a shape, as everywhere)
        """The numbers, float32, made anew."""
        if self.steps_Y2HW is None:
            return from_bfloat16_bits(self.codes_KY2HW.view(np.uint16))
        return self.codes_KY2HW.astype(np.float32) * from_bfloat16_bits(self.steps_Y2HW)

    @functools.cached_property
    def slot_digests(self) -> tuple[bytes, ...]:
        """What stands for each slot wherever reading is remembered: a digest, made once."""
        shared = hashlib.blake2b(digest_size=DIGEST_BYTES)
        shared.update(b"" if self.steps_Y2HW is None else _bytes(self.steps_Y2HW))
        found = []
        for codes in self.codes_KY2HW:
            own = shared.copy()
            own.update(_bytes(codes))
            found.append(own.digest())
        return tuple(found)

    def part(self, start: int, end: int) -> KeyValueRun:
        """The slots ``start..end``, which are not copied."""
        return KeyValueRun(codes_KY2HW=self.codes_KY2HW[start:end], steps_Y2HW=self.steps_Y2HW)

    def pack(self) -> dict[str, Buffer]:
        """The bytes of each tensor, little-endian."""
        packed = {CODES: _bytes(self.codes_KY2HW)}
        if self.steps_Y2HW is not None:
            packed[STEPS] = _bytes(self.steps_Y2HW)
        return packed

    @classmethod
    def unpack(cls, data: Mapping[str, Buffer], shape_Y2HW: tuple[int, ...]) -> KeyValueRun:
        """What the bytes of a file stand for; they are not copied."""
        codes, steps = data[CODES], data.get(STEPS)
        dtype = np.dtype("<u2" if steps is None else "i1")
        return cls(
            codes_KY2HW=np.frombuffer(codes, dtype=dtype).reshape(-1, *shape_Y2HW),
            steps_Y2HW=None
            if steps is None
            else np.frombuffer(steps, dtype="<u2").reshape(shape_Y2HW),
        )


def _bytes(array: NDArray[np.uint16] | NDArray[np.int8]) -> Buffer:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data
