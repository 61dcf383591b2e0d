"""Where keys stand: turning the rotary keys of a cache from one position to another.

A rotary key is R(p) k: its pairs of channels are turned by angles p * w. Which channels make a
pair, how many are turned at all, and by which frequencies, differs between models and between
layers of one model. Nothing here goes by a model's name: each layer's turn is found among
the frequencies that the model holds, by what the model itself does to one token at several
positions. One token alone attends to itself, so its hidden states do not depend on its position,
and its keys differ by the turn and by nothing else.

Source: Su et al. 2021 (arXiv:2104.09864).

Shape legend: R rows, H key-value heads, P places, W head width, F frequencies, N tried tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from icae.errors import BaseModelError
from icae.model.around import embed
from icae.model.decoder import KeyValues, read

TRIED = (1, 5, 37, 250)
"""Positions at which each layer's keys are compared with those at 0."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""Largest difference of a key, of the largest key, that rounding explains."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """How the keys of a layer are turned by one position.

    Attributes:
        frequency_F: Angle of each pair, float32; none for a layer without positions.
        interleaved: Whether pair i is channels (2i, 2i + 1), else (i, i + F).
    """

    frequency_F: Tensor
    interleaved: bool

    def __call__(self, keys_RHPW: Tensor, positions_P: Tensor) -> Tensor:
        """Keys turned on by so many positions (back, if negative), in their dtype."""
        return self.turned(keys_RHPW, *self.rotation(positions_P.to(keys_RHPW.device)))

    def rotation(self, positions_P: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [P, F] of the angles of each pair, for layers that share them."""
        angle_PF = positions_P.to(torch.float32)[:, None] * self.frequency_F
        return angle_PF.cos(), angle_PF.sin()

    def turned(self, keys_RHPW: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Keys turned by `rotation`, in their dtype."""
        pairs = len(self.frequency_F)
        if pairs == 0:
            return keys_RHPW
        turned, rest = keys_RHPW.float().split([2 * pairs, keys_RHPW.shape[-1] - 2 * pairs], -1)
        if self.interleaved:
            first, second = turned[..., 0::2], turned[..., 1::2]
        else:
            first, second = turned.chunk(2, dim=-1)
        new = (first * cos - second * sin, second * cos + first * sin)
        joined = torch.stack(new, dim=-1).flatten(-2) if self.interleaved else torch.cat(new, -1)
        return torch.cat([joined, rest], dim=-1).to(keys_RHPW.dtype)


def steady_positions(config: PreTrainedConfig) -> int:
    """Positions that a base can be read at with one set of rotary frequencies.

    Frequencies of the kind ``longrope`` are others from a length on, for all keys, also those
    in the cache: a base is used up to there.
    """
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(own for own in rope.values() if isinstance(own, Mapping))]
    ends = [
        own["original_max_position_embeddings"]
        for own in kinds
        if own.get("rope_type") == "longrope"
    ]
    return int(min([text.max_position_embeddings, *ends]))


@torch.no_grad()
def key_turns(decoder: PreTrainedModel) -> tuple[Turn, ...]:
    """How each layer of a causal LM turns its keys, found by trying.

    A BaseModelError if a layer's cache is not keys and values of all places, or none of the model's
    frequencies explains its keys.
    """
    layers = DynamicCache(config=decoder.config).layers
    # A layer with a window is read with a cache of all places, its mask keeps to the window.
    if not {type(layer) for layer in layers} <= {DynamicLayer, DynamicSlidingWindowLayer}:
        kinds = sorted({type(layer).__name__ for layer in layers})
        raise _unplaced(decoder, f"layers whose cache is {', '.join(kinds)}")
    at_zero = _alone(decoder, 0)
    end = steady_positions(decoder.config)
    tried = {position: _alone(decoder, position) for position in TRIED if position < end}
    candidates = _candidates(decoder)
    turns: list[Turn] = []
    for index, (keys, values) in enumerate(at_zero):
        wanted = {position: found[index][0] for position, found in tried.items()}
        turn = next((t for t in candidates if _explains(t, keys, wanted)), None)
        if turn is None:
            raise _unplaced(decoder, f"keys of layer {index} that no rotary frequency explains")
        latent = {position: found[index][1] for position, found in tried.items()}
        if not _explains(candidates[0], values, latent):
            raise _unplaced(decoder, f"values of layer {index} that move too: a latent cache")
        turns.append(turn)
    if not any(len(turn.frequency_F) for turn in turns):
        raise _unplaced(decoder, "keys of no layer, or keys without positions (ALiBi)")
    return tuple(turns)


def _candidates(decoder: PreTrainedModel) -> list[Turn]:
    """No turn at all, and every frequency buffer of the model in both orders of channels."""
    device = decoder.get_input_embeddings().weight.device
    found = [
        buffer.detach().float()
        for name, buffer in decoder.named_buffers()
        if name.endswith("inv_freq") and not name.endswith("original_inv_freq")
    ]
    none = Turn(frequency_F=torch.zeros(0, device=device), interleaved=False)
    return [none] + [
        Turn(frequency_F=frequency, interleaved=interleaved)
        for frequency in found
        for interleaved in (False, True)
    ]


def _explains(turn: Turn, keys: Tensor, wanted: dict[int, Tensor]) -> bool:
    if 2 * len(turn.frequency_F) > keys.shape[-1]:
        return False
    bound = TOLERANCE[keys.dtype] * float(keys.abs().max())
    return all(
        float((turn(keys, torch.tensor([position])) - found).abs().max()) <= bound
        for position, found in wanted.items()
    )


def _alone(decoder: PreTrainedModel, position: int) -> KeyValues:
    """Keys and values [N, H, 1, W] of every layer for tokens that stand alone at a position."""
    weight = decoder.get_input_embeddings().weight
    ids = torch.linspace(0, len(weight) - 1, 8, device=weight.device).long()[:, None]
    return read(decoder, embed(decoder, ids), torch.full_like(ids, position))


def _unplaced(decoder: PreTrainedModel, got: str) -> BaseModelError:
    return BaseModelError(
        "The keys of this base model cannot be moved to other positions.",
        got=f"{decoder.config.model_type}: {got}",
        expected="full attention with rotary positions, or none, in every layer",
        fix="Use the embeddings form of memory: model.memory: embeddings.",
    )
