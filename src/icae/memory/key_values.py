"""Slots as keys and values of every layer: what a decoder reads as its own past.

Kept as bfloat16, or as codes of 8 bits. A code counts steps; the size of a step is that of its
layer, of keys or of values, of its head and its channel, the same for all slots of a run.

Shapes: K slots, Y layers, H key-value heads, W head width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from icae.config.parsing import check
from icae.config.types import FloatArray, KeyValueShape, SpanKind
from icae.errors import ConfigError
from icae.memory.bfloat16 import from_bfloat16_bits, to_bfloat16_bits
from icae.memory.checks import ByValue, check_array
from icae.memory.container import SPAN, Buffer, Description, digest_of
from icae.memory.payload import Payload, PayloadReader, Read, ReadablePayload
from icae.memory.provenance import KEY_VALUE_DTYPE, KeyValueDtype, Provenance

CODES = "key_values"
"""Name of the tensor of a file that keeps the codes, a row for each slot."""

STEPS = "key_value_steps"
"""Name of the tensor that keeps the steps, a row for each run."""

LARGEST_CODE = 127

_SIGN = 0x8000
_INFINITY = 0x7F80
_LARGEST_STEP = int((np.finfo(np.float32).max / np.float32(LARGEST_CODE)).view(np.uint32)) >> 16
"""Bits of the largest step of which 127 are finite; those of negative steps are larger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyValueRun(ByValue):
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

    def pack(self) -> dict[str, Buffer]:
        """The bytes of its tensors in a file, little-endian."""
        packed = {CODES: _bytes(self.codes_KY2HW)}
        return packed if self.steps_Y2HW is None else packed | {STEPS: _bytes(self.steps_Y2HW)}

    @functools.cached_property
    def digest(self) -> str:
        """What stands for it wherever reading is remembered: its SHA-256, as in a file."""
        count, *axes = self.codes_KY2HW.shape
        described = _described(count, axes, self.dtype)
        return digest_of(SPAN, KeyValueSlots.kind, described, self.pack())

    def part(self, start: int, end: int) -> KeyValueRun:
        """The slots ``start..end``, which are not copied."""
        return KeyValueRun(codes_KY2HW=self.codes_KY2HW[start:end], steps_Y2HW=self.steps_Y2HW)


class KeyValueSlots(ReadablePayload):
    """Memory slots as keys and values of every layer of the decoder, as a file keeps them.

    Args:
        pairs_KY2HW: Keys, as if at position 0, and values, float32 [K, Y, 2, H, W].
        dtype: How they are stored: they are rounded to it at once.

    Attributes:
        runs: The numbers, slots that share their steps together; those of a loaded memory
            lie in its file.
        shape: What each slot holds.

    Raises:
        ConfigError: If they are not finite numbers of that form.
    """

    kind: ClassVar[SpanKind] = "key-values"
    row: ClassVar[str] = "slot"

    def __init__(self, *, pairs_KY2HW: FloatArray, dtype: KeyValueDtype = KEY_VALUE_DTYPE) -> None:
        check_array("The keys and values are no float32.", pairs_KY2HW, np.float32, 5)
        finite = pairs_KY2HW.size > 0 and bool(np.isfinite(pairs_KY2HW).all())
        check(
            finite and pairs_KY2HW.shape[2] == 2,
            "The keys and values of some slots are damaged.",
            f"{pairs_KY2HW.shape}, or NaN or infinity",
            "finite numbers [slots, layers, 2, heads, width]",
        )
        self._take([KeyValueRun.of(pairs_KY2HW, dtype)], pairs_KY2HW.shape[1:])

    def _take(self, runs: Iterable[KeyValueRun], axes: Sequence[int]) -> None:
        layers, _, heads, width = axes
        self.runs = tuple(runs)
        self.shape = KeyValueShape(layers=layers, heads=heads, width=width)

    @classmethod
    def of_runs(cls, runs: Iterable[KeyValueRun], shape: KeyValueShape) -> KeyValueSlots:
        """The slots of several runs, none of which is copied."""
        made = cls.__new__(cls)
        made._take(runs, shape.axes)
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyValueSlots) and (
            (self.runs, self.shape) == (other.runs, other.shape)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def positions(self) -> int:
        """Number of slots K."""
        return sum(map(len, self.runs))

    @property
    def pairs_KY2HW(self) -> FloatArray:  # noqa: N802 (a shape, as everywhere)
        """Keys, as if at position 0, and values, float32 [K, Y, 2, H, W], made anew."""
        none = np.zeros((0, *self.shape.axes), dtype=np.float32)
        return np.concatenate([none, *(run.pairs_KY2HW for run in self.runs)])

    @property
    def numbers(self) -> FloatArray:
        """The keys and values."""
        return self.pairs_KY2HW

    def changed(self, numbers: FloatArray) -> KeyValueSlots:
        """Other keys and values, stored like these."""
        return KeyValueSlots(pairs_KY2HW=numbers, dtype=self.runs[0].dtype)

    def read_by(self, reader: PayloadReader[Read]) -> Read:
        """Hand the keys and values to the reader."""
        return reader.read_key_values(self)

    def known_by(self, sha256: str) -> None:
        """Of its one run."""
        (run,) = self.runs
        vars(run)["digest"] = sha256

    def part(self, start: int, end: int) -> KeyValueSlots:
        """Those of the slots ``start..end``."""
        parts, at = [], 0
        for run in self.runs:
            first, last = max(start - at, 0), min(end - at, len(run))
            if first < last:
                parts.append(run.part(first, last))
            at += len(run)
        return self.of_runs(parts, self.shape)

    @classmethod
    def gather(cls, payloads: Iterable[Payload], provenance: Provenance) -> KeyValueSlots:
        """All keys and values among some payloads; there may be none."""
        runs = [run for own in payloads if isinstance(own, KeyValueSlots) for run in own.runs]
        return cls.of_runs(runs, _shape(provenance))

    def require_fit(self, provenance: Provenance) -> None:
        """A ConfigError unless they are of the decoder's shape and stored as it says."""
        dtypes = [run.dtype for run in self.runs]
        check(
            (self.shape, dtypes) == (provenance.key_values, [provenance.slot_dtype]),
            "The keys and values of a span are of another decoder, or stored in another way.",
            f"{self.shape}, {' and '.join(dtypes)}",
            f"{provenance.key_values}, {provenance.slot_dtype} (provenance), as one run",
        )

    @classmethod
    def tensors(cls, positions: int, provenance: Provenance) -> dict[str, Description]:
        """[K, Y, 2, H, W]; of codes of 8 bits also their steps, [1, Y, 2, H, W]."""
        return _described(positions, _shape(provenance).axes, provenance.slot_dtype)

    def pack(self, provenance: Provenance) -> dict[str, Buffer]:
        """The bytes of its one run, little-endian."""
        (run,) = self.runs
        return run.pack()

    @classmethod
    def unpack(cls, data: Mapping[str, Buffer], provenance: Provenance) -> KeyValueSlots:
        """The numbers where they lie."""
        shape, steps = _shape(provenance), None
        if STEPS in data:
            steps = np.frombuffer(data[STEPS], dtype="<u2").reshape(shape.axes)
        codes = np.frombuffer(data[CODES], dtype="<u2" if steps is None else "i1")
        run = KeyValueRun(codes_KY2HW=codes.reshape(-1, *shape.axes), steps_Y2HW=steps)
        return cls.of_runs([run], shape)


def _bytes(array: NDArray[np.uint16] | NDArray[np.int8]) -> Buffer:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def _described(slots: int, axes: Sequence[int], dtype: str) -> dict[str, Description]:
    """The tensors that keep a run of so many slots."""
    if dtype == "bfloat16":
        return {CODES: ("BF16", (slots, *axes))}
    return {STEPS: ("BF16", (1, *axes)), CODES: ("I8", (slots, *axes))}


def _shape(provenance: Provenance) -> KeyValueShape:
    shape = provenance.key_values
    if shape is None:
        raise ConfigError(
            "Slots that are embeddings have no keys and values.",
            got="provenance.key_values: None",
            expected="the shape of the decoder's key-value cache",
        )
    return shape
