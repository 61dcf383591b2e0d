"""What a key-value cache takes, measured on one that is built, on `meta` too, with a few tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from icae.model.around import body_of

FEW = (2, 6)
"""Tokens of the two caches that are built."""


@dataclass(frozen=True, kw_only=True)
class LayerSize:
    """What a layer's cache takes.

    Attributes:
        fixed: Bytes that do not grow: the state of a recurrent layer.
        place: Bytes of each place.
        window: Most places that it keeps, or None for all.
    """

    fixed: int
    place: int
    window: int | None

    def of_places(self, places: int) -> int:
        """Bytes of so many places."""
        kept = places if self.window is None else min(places, self.window)
        return self.fixed + self.place * kept


@dataclass(frozen=True, kw_only=True)
class CacheSize:
    """What the cache of a decoder takes, layer by layer."""

    layers: tuple[LayerSize, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, decoder: PreTrainedModel) -> CacheSize:
        """Build caches of a few tokens and measure them."""
        few, more = (_bytes(decoder, tokens) for tokens in FEW)
        layers = []
        for layer, less, full in zip(
            DynamicCache(config=decoder.config).layers, few, more, strict=True
        ):
            place = (full - less) // (FEW[1] - FEW[0])
            window = getattr(layer, "sliding_window", None)
            # The newest place is read, and not kept: it sees itself beside those kept.
            kept = None if window is None else window - 1
            layers.append(LayerSize(fixed=less - place * FEW[0], place=place, window=kept))
        return cls(layers=tuple(layers))

    def of_places(self, places: int) -> int:
        """Bytes of a cache of so many places."""
        return sum(layer.of_places(places) for layer in self.layers)


def _bytes(decoder: PreTrainedModel, tokens: int) -> list[int]:
    """Bytes of every layer's cache of so many tokens."""
    device = decoder.get_input_embeddings().weight.device
    ids = torch.arange(tokens, device=device)[None]
    cache = DynamicCache(config=decoder.config)
    body_of(decoder)(input_ids=ids, past_key_values=cache, use_cache=True)
    layers = ((t for t in _tensors(vars(layer)) if t.is_floating_point()) for layer in cache.layers)
    return [sum(t.nbytes for t in layer) for layer in layers]


def _tensors(held: object) -> Iterator[Tensor]:
    """Every tensor in a layer's cache, however it holds them."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict):
        for part in held.values():
            yield from _tensors(part)
    elif isinstance(held, list | tuple):
        for part in held:
            yield from _tensors(part)
