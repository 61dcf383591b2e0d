"""The bytes in which llama.cpp keeps what a sequence has read, taken apart and put together.

The library copies them between caches (``llama_state_seq_get_data``), so keys and values that
were computed elsewhere enter a cache the same way. Their layout is no promise: each field of what
the library itself writes is compared with what is expected, and a difference is refused.

Shape legend: P cells, Y layers, C channels of a layer (all its heads).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.errors import InputError

_HEAD = np.dtype([("magic", "<u4"), ("sequence", "<i4"), ("streams", "<u4")])
_COUNT = np.dtype("<u4")
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
        cells = int(data[at : at + _COUNT.itemsize].view(_COUNT)[0])
        at += _COUNT.itemsize + cells * _CELL.itemsize
        transposed = self.transposed
        if cells:
            transposed = int(data[at : at + _BODY.itemsize].view(_BODY)["transposed"][0])
        return replace(self, streams=streams, stream=stream, cells=cells, transposed=transposed)

    @property
    def dtype(self) -> np.dtype[Any]:
        """All fields, one after the other, of a state with at least one cell."""
        rows, columns = (self.cells, self.channels), (self.channels, self.cells)
        by_row = np.dtype([("size", _ROWS), ("numbers", self.item, rows)])
        by_column = np.dtype([("size", _COLUMNS), ("numbers", self.item, columns)])
        return np.dtype(
            [
                ("head", _HEAD),
                ("cells before", _COUNT, (self.stream,)),
                ("cells", _COUNT),
                ("places", _CELL, (self.cells,)),
                ("transposed, layers", _BODY),
                ("keys", by_row, (self.layers,)),
                ("values", by_column if self.transposed else by_row, (self.layers,)),
                ("cells behind", _COUNT, (self.streams - 1 - self.stream,)),
            ]
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceState:
    """What a sequence has read, at least one input; all arrays are views of the bytes.

    Attributes:
        data: The library's bytes.
        layout: Where their fields lie.
    """

    data: Bytes
    layout: StateLayout

    @functools.cached_property
    def fields(self) -> NDArray[Any]:
        """Every field as it stands in the bytes, [1]."""
        return self.data.view(self.layout.dtype)

    @functools.cached_property
    def cells_P(self) -> NDArray[Any]:  # noqa: N802 (a shape)
        """Position, owners and owner of each cell."""
        return self.fields["places"][0]

    @functools.cached_property
    def keys_YPC(self) -> NDArray[Any]:  # noqa: N802
        """Keys of every layer."""
        return self.fields["keys"]["numbers"][0]

    @functools.cached_property
    def values_YPC(self) -> NDArray[Any]:  # noqa: N802
        """Values of every layer."""
        values = self.fields["values"]["numbers"][0]
        return values.swapaxes(1, 2) if self.layout.transposed else values

    def known(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """The fields whose content is known, and that."""
        layout, fields = self.layout, self.fields
        size = layout.item.itemsize
        rows = np.array((layout.kind, layout.channels * size), dtype=_ROWS)
        columns = np.array((layout.kind, size, layout.channels), dtype=_COLUMNS)
        body = np.array((layout.transposed, layout.layers), dtype=_BODY)
        return {
            "cells before": (fields["cells before"], np.array(0)),
            "cells": (fields["cells"], np.array(layout.cells)),
            "transposed, layers": (fields["transposed, layers"], body),
            "type and size of keys": (fields["keys"]["size"], rows),
            "type and size of values": (
                fields["values"]["size"],
                columns if layout.transposed else rows,
            ),
            "cells behind": (fields["cells behind"], np.array(0)),
        }

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
            if layout.transposed not in (0, 1) or not layout.cells:
                raise ValueError
            size = layout.dtype.itemsize
        except (IndexError, ValueError) as error:
            raise _unknown("bytes", len(data), "a state") from error
        if size != len(data):
            raise _unknown("bytes", len(data), f"{size} for {layout.cells} cells")
        state = cls(data=data, layout=layout)
        for name, (found, wanted) in state.known().items():
            if (found != wanted).any():
                raise _unknown(name, found.flat[0], wanted)
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
        state = cls(data=np.zeros(layout.dtype.itemsize, dtype=np.uint8), layout=layout)
        for field, wanted in state.known().values():
            field[...] = wanted
        own = head[: _HEAD.itemsize].view(_HEAD)
        state.fields["head"][...] = own
        state.cells_P["position"] = np.arange(cells)
        state.cells_P["owners"] = 1
        state.cells_P["owner"] = own["sequence"][0]
        return state


def _unknown(what: str, got: object, expected: object) -> InputError:
    return InputError(
        "This llama.cpp keeps its cache in a layout that is not known here.",
        got=f"{what}: {got}",
        expected=str(expected),
        fix="Use --runtime torch, or the version of llama-cpp-python in constraints.txt.",
    )
