"""Keys and values of decoder places: what a decoder that has read something goes on from.

Shape legend: R rows, P places of the longest row, H key-value heads, W head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

KeyValues = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of every layer, each [R, H, places, W]."""


def stacked(fronts: Sequence[KeyValues | None]) -> tuple[DynamicCache, Tensor]:
    """One cache of all fronts, padded on the left, and where it holds something.

    Gradients flow through the cache to the fronts.

    Args:
        fronts: Keys and values of each row, or None for nothing.

    Returns:
        The cache, [R, H, P, W] a layer, and the mask [R, P], long.
    """
    lengths = [0 if front is None else front[0][0].shape[2] for front in fronts]
    longest = max(lengths)
    mask_RP = torch.zeros(len(fronts), longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask_RP[row, longest - length :] = 1
    known = [front for front in fronts if front is not None]
    if longest == 0 or not known:
        return DynamicCache(), mask_RP
    layers = []
    for layer, pair in enumerate(known[0]):
        made = [t.new_zeros(len(fronts), t.shape[1], longest, t.shape[3]) for t in pair]
        for row, front in enumerate(fronts):
            if front is not None:
                for target, own in zip(made, front[layer], strict=True):
                    target[row, :, longest - lengths[row] :] = own[0]
        layers.append(tuple(made))
    return DynamicCache(layers), mask_RP
