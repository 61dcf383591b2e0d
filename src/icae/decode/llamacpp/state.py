"""The bytes in which llama.cpp keeps what a sequence has read, taken apart and put together.

The library copies them between caches (``llama_state_seq_get_data``), so keys and values that
were computed elsewhere enter a cache the same way. Their layout is no promise: each field of what
the library itself writes is compared with what is expected, and a difference is refused.

Shape legend: P cells, Y layers, C channels of a layer (all its heads).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.errors import InputError

_HEAD = np.dtype([("magic", "<u4"), ("sequence", "<i4"), ("streams", "<u4")])
_COUNT = np.dtype([("cells", "<u4")])
_CELL = np.dtype([("position", "<i4"), ("owners", "<u4"), ("owner", "<i4")])
_BODY = np.dtype([("transposed", "<u4"), ("layers", "<u4")])
_ROWS = np.dtype([("type", "<i4"), ("row", "<u8")])
_COLUMNS = np.dtype([("type", "<i4"), ("item", "<u4"), ("channels", "<u4")])

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class StateLayout:
    """Where each field of a sequence's state lies.

    Attributes:
        layers: Layers Y.
        channels: Channels C of a layer's keys, and of its values.
        item: Dtype of a number.
        kind: ggml's number for this dtype.
        transposed: 1 where values stand channel by channel, else 0.
        streams: Streams of the cache.
        stream: The one that the sequence is in.
        cells: Cells P of the sequence.
    """

    layers: int
    channels: int
    item: np.dtype[Any]
    kind: int
    transposed: int = 0
    streams: int = 1
    stream: int = 0
    cells: int = 0

    def of(self, data: Bytes) -> StateLayout:
        """This layout, with what a state says of streams and cells and how values stand."""
        head = data[: _HEAD.itemsize].view(_HEAD)[0]
        streams = int(head["streams"])
        stream = int(head["sequence"]) if streams > 1 else 0
        at = _HEAD.itemsize + stream * _COUNT.itemsize
        cells = int(data[at : at + _COUNT.itemsize].view(_COUNT)["cells"][0])
        at += _COUNT.itemsize + cells * _CELL.itemsize
        transposed = self.transposed
        if cells:
            transposed = int(data[at : at + _BODY.itemsize].view(_BODY)["transposed"][0])
        return replace(self, streams=streams, stream=stream, cells=cells, transposed=transposed)

    @property
    def block(self) -> int:
        """Bytes of a layer's keys, or of its values, with what stands before them."""
        return _ROWS.itemsize + self.cells * self.channels * self.item.itemsize

    @property
    def size(self) -> int:
        """Bytes in all."""
        counts = _HEAD.itemsize + self.streams * _COUNT.itemsize
        body = _BODY.itemsize + 2 * self.layers * self.block
        return counts + (self.cells * _CELL.itemsize + body if self.cells else 0)

    def fixed(self) -> dict[str, NDArray[Any]]:
        """What those fields have to say whose content is known."""
        size = self.item.itemsize
        rows = np.array((self.kind, self.channels * size), dtype=_ROWS)
        columns = np.array((self.kind, size, self.channels), dtype=_COLUMNS)
        return {
            "cells before": np.zeros((), dtype=_COUNT),
            "cells": np.array((self.cells,), dtype=_COUNT),
            "transposed, layers": np.array((self.transposed, self.layers), dtype=_BODY),
            "type and size of keys": rows,
            "type and size of values": columns if self.transposed else rows,
            "cells behind": np.zeros((), dtype=_COUNT),
        }

    def fields(self, data: Bytes) -> dict[str, NDArray[Any]]:
        """Every field, as it stands in the bytes of a state with at least one cell."""

        def view(at: int, dtype: np.dtype[Any], *shape: int, strides: Any = None) -> NDArray[Any]:
            return np.ndarray(shape, dtype, data.data, at, strides)

        places, item, block = (self.layers, self.cells, self.channels), self.item, self.block
        by_row = (block, self.channels * item.itemsize, item.itemsize)
        by_column = (block, item.itemsize, self.cells * item.itemsize)
        cells = _HEAD.itemsize + (self.stream + 1) * _COUNT.itemsize
        body = cells + self.cells * _CELL.itemsize
        keys = body + _BODY.itemsize
        values = keys + self.layers * block
        kinds = _COLUMNS if self.transposed else _ROWS
        return {
            "head": view(0, _HEAD, 1),
            "cells before": view(_HEAD.itemsize, _COUNT, self.stream),
            "cells": view(cells - _COUNT.itemsize, _COUNT, 1),
            "places": view(cells, _CELL, self.cells),
            "transposed, layers": view(body, _BODY, 1),
            "type and size of keys": view(keys, _ROWS, self.layers, strides=(block,)),
            "keys": view(keys + _ROWS.itemsize, item, *places, strides=by_row),
            "type and size of values": view(values, kinds, self.layers, strides=(block,)),
            "values": view(
                values + _ROWS.itemsize,
                item,
                *places,
                strides=by_column if self.transposed else by_row,
            ),
            "cells behind": view(
                values + self.layers * block, _COUNT, self.streams - 1 - self.stream
            ),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceState:
    """What a sequence has read, at least one input; all arrays are views of the bytes.

    Attributes:
        data: The library's bytes.
        layout: Where their fields lie.
        cells_P: Position, owners and owner of each cell.
        keys_YPC: Keys.
        values_YPC: Values.
    """

    data: Bytes
    layout: StateLayout
    cells_P: NDArray[Any]
    keys_YPC: NDArray[Any]
    values_YPC: NDArray[Any]

    @classmethod
    def read(cls, data: Bytes, known: StateLayout) -> SequenceState:
        """Take apart what the library wrote.

        Args:
            data: The bytes.
            known: What they have to agree with, but for streams, cells and transposition.

        Raises:
            InputError: If a field is not what is expected.
        """
        try:
            layout = known.of(data)
        except (IndexError, ValueError) as error:
            raise _unknown("bytes", len(data), "a state") from error
        if layout.transposed not in (0, 1) or not layout.cells or layout.size != len(data):
            raise _unknown("bytes", len(data), f"{layout.size} for {layout.cells} cells")
        fields = layout.fields(data)
        for name, wanted in layout.fixed().items():
            if (fields[name] != wanted).any():
                raise _unknown(name, fields[name][0], wanted)
        state = cls._of(data, layout)
        if (state.cells_P["owners"] != 1).any():
            raise _unknown("owners of a cell", state.cells_P["owners"].max(), 1)
        return state

    @classmethod
    def room(cls, head: Bytes, template: SequenceState, cells: int) -> SequenceState:
        """A state of cells at the positions 0, 1, 2, ..., their numbers still to be filled in.

        Args:
            head: What the library writes of the sequence that it is for, with cells or without.
            template: What it wrote of a sequence.
            cells: Number of cells, at least one.
        """
        transposed = template.layout.transposed
        layout = replace(template.layout.of(head), cells=cells, transposed=transposed)
        data = np.zeros(layout.size, dtype=np.uint8)
        fields = layout.fields(data)
        for name, wanted in layout.fixed().items():
            fields[name][...] = wanted
        fields["head"][...] = head[: _HEAD.itemsize].view(_HEAD)
        fields["places"]["position"] = np.arange(cells)
        fields["places"]["owners"] = 1
        fields["places"]["owner"] = fields["head"]["sequence"]
        return cls._of(data, layout)

    @classmethod
    def _of(cls, data: Bytes, layout: StateLayout) -> SequenceState:
        fields = layout.fields(data)
        return cls(
            data=data,
            layout=layout,
            cells_P=fields["places"],
            keys_YPC=fields["keys"],
            values_YPC=fields["values"],
        )


def _unknown(what: str, got: object, expected: object) -> InputError:
    return InputError(
        "This llama.cpp keeps its cache in a layout that is not known here.",
        got=f"{what}: {got}",
        expected=str(expected),
        fix="Use --runtime torch, or the version of llama-cpp-python in constraints.txt.",
    )
