"""The key-value cache of what the torch runtime read last, kept for what begins alike.

Shape legend: H key-value heads, P decoder places, W head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from icae.decode.prefix import ReadSoFar
from icae.errors import InputError
from icae.model.decoder import KeyValues, key_value_shape, places_of


def keeps_all(config: PreTrainedConfig) -> bool:
    """Whether the cache of this decoder holds every place, so that its end can be cut off."""
    return {type(layer) for layer in DynamicCache(config=config).layers} == {DynamicLayer}


def stacks(config: PreTrainedConfig) -> bool:
    """Whether caches of this decoder can be padded and stacked: attention layers only."""
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer}


@dataclass(frozen=True, kw_only=True)
class LastRead:
    """A cache, and what was read into it."""

    cache: DynamicCache
    read: ReadSoFar

    def places(self, inputs: int) -> KeyValues:
        """Keys and values of the first inputs."""
        return places_of(tuple((keys, values) for keys, values, *_ in self.cache), 0, inputs)

    def cut(self, inputs: int) -> DynamicCache:
        """The cache of the first inputs alone; what lies behind them is forgotten."""
        extra = self.cache.get_seq_length() - inputs
        if extra > 0:
            self.cache.crop(-extra)
        return self.cache


def kv_to_bytes(cache: DynamicCache) -> bytes:
    """A cache as the bytes of a safetensors file."""
    tensors = {}
    for i, (keys, values, _) in enumerate(cache):
        tensors[f"keys.{i}"] = keys.detach().cpu().contiguous()
        tensors[f"values.{i}"] = values.detach().cpu().contiguous()
    return bytes(save(tensors))


def kv_from_bytes(
    data: bytes,
    decoder: PreTrainedModel,
    *,
    places: int,
    dtype: torch.dtype,
    device: torch.device,
) -> DynamicCache:
    """A cache from `kv_to_bytes`, on a device.

    Raises:
        InputError: If the bytes are no cache of that decoder, precision and number of places.
    """
    shape = key_value_shape(decoder)
    layers = shape.layers
    names = [f"{kind}.{i}" for i in range(layers) for kind in ("keys", "values")]
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise InputError("A key-value cache is damaged.", got=str(error)) from error
    wanted = ((1, shape.heads, places, shape.width), dtype)
    found = {(tuple(tensor.shape), tensor.dtype) for tensor in tensors.values()}
    if sorted(tensors) != sorted(names) or found != {wanted}:
        raise InputError(
            "A key-value cache does not fit the decoder.",
            got=f"{len(tensors)} tensors of {sorted(map(str, found))}",
            expected=f"{len(names)} of {wanted}",
        )
    pairs = [
        (tensors[f"keys.{i}"].to(device), tensors[f"values.{i}"].to(device)) for i in range(layers)
    ]
    return DynamicCache(pairs, config=decoder.config)
