"""A base model's folder, read without torch: its settings, and its tensors one at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.config.types import FloatArray
from icae.errors import BaseModelError
from icae.memory.bfloat16 import from_bfloat16_bits, to_bfloat16_bits

_ITEM = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, kw_only=True)
class CheckpointTensor:
    """One tensor in a file, read when asked for.

    Attributes:
        path: The file.
        dtype: safetensors name of its dtype.
        shape: Its dimensions.
        start: Its first byte in the file.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def _items(self) -> NDArray[Any]:
        return np.memmap(
            self.path, dtype=_ITEM[self.dtype], mode="r", offset=self.start, shape=self.shape
        )

    def float32(self) -> FloatArray:
        """Its values."""
        return self._widened(self._items())

    def rows(self, indices: NDArray[np.int64]) -> FloatArray:
        """Some of its rows, [N, ...]; only these are read."""
        return self._widened(self._items()[indices])

    def _widened(self, items: NDArray[Any]) -> FloatArray:
        return from_bfloat16_bits(items) if self.dtype == "BF16" else items.astype(np.float32)

    def bfloat16_bits(self) -> NDArray[np.uint16]:
        """Its values rounded to bfloat16, as bits."""
        if self.dtype == "BF16":
            return np.ascontiguousarray(self._items())
        return to_bfloat16_bits(self.float32()).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class BaseFolder:
    """A base model's folder: settings and weights, not yet read.

    Attributes:
        config: ``config.json``.
        tensors: Its weights by name, those tied to another left out.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, CheckpointTensor]

    @classmethod
    def open(cls, path: Path) -> BaseFolder:
        """Read the settings and the index of the weights, as transformers writes them.

        Raises:
            BaseModelError: If it holds no model, a file is damaged, or a dtype is not known.
        """
        config = read_settings(path)
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise BaseModelError(
                f"There are no weights in {path}.",
                expected="model.safetensors",
                fix="Use --runtime torch, which reads every format of transformers.",
            )
        tensors = {name: tensor for file in files for name, tensor in _tensors_of(file)}
        if config.get("tie_word_embeddings", False):
            tensors.pop("lm_head.weight", None)
        return cls(config=config, tensors=tensors)

    def weight_hash(self) -> str:
        """The hash of the weights, that of `icae.model.base.weight_hash`."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name}{tensor.shape}".encode())
            digest.update(memoryview(tensor.bfloat16_bits()))  # type: ignore[arg-type]
        return digest.hexdigest()


def read_settings(path: Path) -> Mapping[str, Any]:
    """The ``config.json`` of a base model's folder.

    Raises:
        BaseModelError: If it holds no model.
    """
    try:
        found: Mapping[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"{path} is not a folder with a model.", got=str(error), expected="config.json"
        ) from error
    return found


def _tensors_of(path: Path) -> Iterator[tuple[str, CheckpointTensor]]:
    from gguf.utility import SafetensorsLocal

    try:
        found = SafetensorsLocal(path).tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"The weights {path} are damaged.", got=str(error)) from error
    for name, tensor in found.items():
        if tensor.dtype not in _ITEM:
            raise BaseModelError(
                f"The weights {path} are of a kind that is not read here.",
                got=f"{name}: {tensor.dtype}",
                expected=", ".join(_ITEM),
                fix="Use --runtime torch.",
            )
        start = tensor.data_range.offset
        yield name, CheckpointTensor(path=path, dtype=tensor.dtype, shape=tensor.shape, start=start)
