"""Keys and values of a memory as llama.cpp keeps them.

A memory holds them as torch does, keys as if at position 0. In the cache of llama.cpp keys are
turned to where they stand, and their channels may stand in another order, as the conversion to
GGUF swaps them for some models. Neither is told by the name of a model: both were found once, by
comparing the caches (`icae.decode.cache_order`), and lie beside the GGUF file.

Shape legend: P places, Y layers, H key-value heads, W head width, C = H W channels,
F frequencies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.config.atomic_write import write_atomically
from icae.config.parsing import from_dict, to_dict
from icae.config.types import FloatArray
from icae.errors import BaseModelError, ConfigError, InputError

Channels = NDArray[np.int64]
Positions = NDArray[np.int64]
Cells = NDArray[Any]
"""Numbers of some places in all layers, [Y, P, C], in the dtype of the cache."""


@dataclass(frozen=True, kw_only=True)
class LayerOrder:
    """How llama.cpp keeps the keys and values of a layer.

    Attributes:
        width: Width W of a head.
        frequencies: Angle of each pair of a head's channels for one position, F of them.
        interleaved: Whether pair i of a head is, in torch, channels (2i, 2i + 1), else (i, i + F).
        keys: Channel in torch of each channel of keys, C of them.
        values: Channel in torch of each channel of values.
    """

    width: int
    frequencies: tuple[float, ...]
    interleaved: bool
    keys: tuple[int, ...]
    values: tuple[int, ...]

    def turned(self, keys_PYC: FloatArray, position_P: Positions) -> FloatArray:
        """Keys of some layers turned by positions, in torch's order of channels, float32 [P, Y, C].

        Args:
            keys_PYC: The keys, as if at position 0.
            position_P: Positions; negative ones turn back.
        """
        count = len(self.frequencies)
        first, second = slice(count), slice(count, 2 * count)
        if self.interleaved:
            first, second = slice(0, 2 * count, 2), slice(1, 2 * count, 2)
        angle_PF = position_P.astype(np.float32)[:, None] * np.array(
            self.frequencies, dtype=np.float32
        )
        cos_PW = np.ones((len(angle_PF), self.width), dtype=np.float32)
        sin_PW = np.zeros_like(cos_PW)
        cos_PW[:, first] = cos_PW[:, second] = np.cos(angle_PF)
        sin_PW[:, second] = np.sin(angle_PF)
        sin_PW[:, first] = -sin_PW[:, second]
        heads_PGW = keys_PYC.reshape(len(keys_PYC), -1, self.width)
        mates_PGW = heads_PGW.copy()
        mates_PGW[..., first], mates_PGW[..., second] = (
            heads_PGW[..., second],
            heads_PGW[..., first],
        )
        turned_PGW = heads_PGW * cos_PW[:, None]
        mates_PGW *= sin_PW[:, None]
        turned_PGW += mates_PGW
        return turned_PGW.reshape(keys_PYC.shape)


@dataclass(frozen=True, kw_only=True)
class CacheOrder:
    """How llama.cpp keeps the keys and values of a base model.

    Attributes:
        kinds: The different orders among its layers.
        layers: Index of each layer's order, Y of them.
    """

    kinds: tuple[LayerOrder, ...]
    layers: tuple[int, ...]

    @classmethod
    def of(cls, layers: Sequence[LayerOrder]) -> CacheOrder:
        """The orders of all layers, equal ones kept once."""
        kinds = list(dict.fromkeys(layers))
        return cls(kinds=tuple(kinds), layers=tuple(kinds.index(layer) for layer in layers))

    def place(
        self,
        pairs_PY2HW: FloatArray,
        position_P: Positions,
        keys_YPC: Cells,
        values_YPC: Cells,
        rounded: Callable[[FloatArray], NDArray[Any]],
    ) -> None:
        """Write keys and values of a memory as llama.cpp keeps them.

        Args:
            pairs_PY2HW: Keys, as if at position 0, and values, float32.
            position_P: Where each place is wanted.
            keys_YPC: Where the keys go.
            values_YPC: Where the values go.
            rounded: What rounds numbers to the dtype of the cache.

        Raises:
            InputError: If they are not of this base model, or too large for the cache.
        """
        rows_PY2C = pairs_PY2HW.reshape(*pairs_PY2HW.shape[:3], -1)
        if rows_PY2C.shape[1::2] != keys_YPC.shape[::2]:
            raise InputError(
                "The keys and values of the memory are not of this base model.",
                got="{} layers of {} channels".format(*rows_PY2C.shape[1::2]),
                expected="{} layers of {} channels".format(*keys_YPC.shape[::2]),
            )
        # A turned number is at most sqrt(2) times the larger of its pair.
        limit = float(np.finfo(keys_YPC.dtype).max) / 2**0.5
        largest = max(-float(rows_PY2C.min(initial=0)), float(rows_PY2C.max(initial=0)))
        if largest > limit:
            raise InputError(
                "The memory holds numbers too large for the cache of llama.cpp.",
                got=f"{largest:.6g}",
                expected=f"up to {limit:.6g}, {keys_YPC.dtype}",
                fix="Use --dtype float32, or --runtime torch.",
            )
        for kind, layers in self._groups():
            keys_PYC = rounded(kind.turned(rows_PY2C[:, layers, 0], position_P))
            values_PYC = rounded(rows_PY2C[:, layers, 1])
            keys_YPC[layers] = _reordered(keys_PYC, kind.keys).swapaxes(0, 1)
            values_YPC[layers] = _reordered(values_PYC, kind.values).swapaxes(0, 1)

    def taken(self, position_P: Positions, keys_YPC: Cells, values_YPC: Cells) -> FloatArray:
        """The other way: what a memory would hold, [P, Y, 2, H, W], of what llama.cpp keeps."""
        layers, places, channels = keys_YPC.shape
        rows_PY2C = np.empty((places, layers, 2, channels), dtype=np.float32)
        for kind, own in self._groups():
            keys_PYC = keys_YPC[own].swapaxes(0, 1).astype(np.float32)
            values_PYC = values_YPC[own].swapaxes(0, 1)
            keys_PYC = keys_PYC.take(np.argsort(kind.keys), axis=2)
            rows_PY2C[:, own, 0] = kind.turned(keys_PYC, -position_P)
            rows_PY2C[:, own, 1] = values_PYC.take(np.argsort(kind.values), axis=2)
        return rows_PY2C.reshape(places, layers, 2, -1, self.kinds[0].width)

    def _groups(self) -> Iterator[tuple[LayerOrder, slice | Channels]]:
        """Each order and its layers; all of them are no copy."""
        for index, kind in enumerate(self.kinds):
            own = np.flatnonzero(np.array(self.layers) == index)
            yield kind, own if len(self.kinds) > 1 else slice(None)

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_atomically(path, [json.dumps(to_dict(self)).encode()])

    @classmethod
    def read(cls, path: Path) -> CacheOrder:
        """Read what `write` wrote.

        Raises:
            BaseModelError: If it is something else.
        """
        try:
            return from_dict(cls, json.loads(path.read_text(encoding="utf-8")), where=str(path))
        except (OSError, ValueError, ConfigError) as error:
            raise BaseModelError(
                f"{path} does not say how llama.cpp keeps keys and values.",
                got=str(error),
                fix="Delete the file; it is written again at the next use.",
            ) from error


def _reordered(numbers_PYC: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
    """Numbers with their channels in an order."""
    if tuple(order) == tuple(range(len(order))):
        return numbers_PYC
    return numbers_PYC.take(np.array(order), axis=2, mode="clip")
