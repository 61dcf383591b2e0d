"""Slots as keys and values of every layer: what a decoder reads as its own past.

Shapes: K slots, Y layers, H key-value heads, W head width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from icae.config.parsing import check
from icae.config.types import FloatArray, KeyValueShape, SpanKind
from icae.errors import ConfigError
from icae.memory.checks import check_array
from icae.memory.container import Buffer, Description
from icae.memory.key_value_run import CODES, STEPS, KeyValueRun
from icae.memory.payload import Payload, PayloadReader, Read, ReadablePayload
from icae.memory.provenance import KEY_VALUE_DTYPE, KeyValueDtype, Provenance


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
        axes = _shape(provenance).axes
        if provenance.slot_dtype == "bfloat16":
            return {CODES: ("BF16", (positions, *axes))}
        return {STEPS: ("BF16", (1, *axes)), CODES: ("I8", (positions, *axes))}

    def pack(self, provenance: Provenance) -> dict[str, Buffer]:
        """The bytes of its one run."""
        (run,) = self.runs
        return run.pack()

    @classmethod
    def unpack(cls, data: Mapping[str, Buffer], provenance: Provenance) -> KeyValueSlots:
        """The numbers where they lie."""
        shape = _shape(provenance)
        return cls.of_runs([KeyValueRun.unpack(data, shape.axes)], shape)


def _shape(provenance: Provenance) -> KeyValueShape:
    shape = provenance.key_values
    if shape is None:
        raise ConfigError(
            "Slots that are embeddings have no keys and values.",
            got="provenance.key_values: None",
            expected="the shape of the decoder's key-value cache",
        )
    return shape
