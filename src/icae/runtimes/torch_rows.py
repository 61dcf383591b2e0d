"""Greedy decoding of several rows at once, with key-value caches of their own lengths.

A row is what one answer is read from. Its front part may have been read before, once for
all rows that share it; the rest is its tail. Shorter fronts and tails are padded on the
left and masked, and a row that ends leaves the batch, so what a row writes does not
depend on its neighbours.

Shape legend: R rows, P places of the longest front, S places of the longest tail,
H key-value heads, W head width, D hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from icae.model.key_values import KeyValues, stacked


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one answer is read from.

    Attributes:
        front: Keys and values (R = 1) of what was read before, or None.
        tail_SD: Decoder inputs that follow, at least one.
        positions: Their positions; the answer goes on behind the last.
        limit: Most tokens written.
    """

    front: KeyValues | None
    tail_SD: Tensor
    positions: Sequence[int]
    limit: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One more token of every row that goes on.

    Attributes:
        rows: Indices of the rows.
        tokens: The token of each.
    """

    rows: tuple[int, ...]
    tokens: tuple[int, ...]


@torch.inference_mode()
def read_fronts(
    decoder: PreTrainedModel, embeds: Sequence[Tensor], positions: Sequence[Sequence[int]]
) -> list[KeyValues]:
    """Read decoder inputs for their keys and values, in one forward pass.

    Rows are padded on the right, where causal attention cannot look.

    Args:
        decoder: The frozen causal LM.
        embeds: Decoder inputs [P_i, D] of each row.
        positions: Their positions.

    Returns:
        Keys and values of each row, [1, H, P_i, W].
    """
    device = embeds[0].device
    inputs_RPD = torch.nn.utils.rnn.pad_sequence(list(embeds), batch_first=True)
    places_RP = torch.zeros(inputs_RPD.shape[:2], dtype=torch.long)
    for row, own in enumerate(positions):
        places_RP[row, : len(own)] = torch.tensor(own)
    cache = DynamicCache()
    decoder.base_model(
        inputs_embeds=inputs_RPD,
        attention_mask=torch.ones_like(places_RP, device=device),
        position_ids=places_RP.to(device),
        past_key_values=cache,
        use_cache=True,
    )
    return [
        tuple(
            (keys[row : row + 1, :, : len(own)], values[row : row + 1, :, : len(own)])
            for keys, values, _ in cache
        )
        for row, own in enumerate(positions)
    ]


def greedy_rows(
    decoder: PreTrainedModel, rows: Sequence[Row], stop_ids: Collection[int]
) -> Iterator[Step]:
    """Most likely next tokens of all rows, step by step, until each has ended.

    A stop token is the last one of its row.

    Args:
        decoder: The frozen causal LM.
        rows: What the answers are read from.
        stop_ids: Tokens that end an answer.
    """
    device = rows[0].tail_SD.device
    with torch.inference_mode():
        cache, mask_RP = stacked([row.front for row in rows])
        embeds_RSD, tail_mask_RS, places_RS = _tails(rows)
        mask = torch.cat([mask_RP, tail_mask_RS], dim=1).to(device)
        places = places_RS.to(device)
    embeds, left = embeds_RSD, [row.limit for row in rows]
    active = [i for i, limit in enumerate(left) if limit > 0]
    kept = list(range(len(rows)))
    while active:
        with torch.inference_mode():
            if active != kept:
                places_of = torch.tensor([kept.index(i) for i in active], device=device)
                cache.batch_select_indices(places_of)
                mask, places, embeds = mask[places_of], places[places_of], embeds[places_of]
                kept = list(active)
            hidden_RSD = decoder.base_model(
                inputs_embeds=embeds,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            token_R = decoder.get_output_embeddings()(hidden_RSD[:, -1]).argmax(dim=-1)
            embeds = decoder.get_input_embeddings()(token_R)[:, None]
            places = places[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(kept), 1)], dim=1)
        tokens = token_R.tolist()
        yield Step(rows=tuple(kept), tokens=tuple(tokens))
        for i, token in zip(kept, tokens, strict=True):
            left[i] = 0 if token in stop_ids else left[i] - 1
        active = [i for i in kept if left[i] > 0]


def _tails(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [R, S, D], mask [R, S] and positions [R, S] of the tails, padded on the left."""
    longest = max(len(row.tail_SD) for row in rows)
    first = rows[0].tail_SD
    embeds_RSD = first.new_zeros(len(rows), longest, first.shape[1])
    mask_RS = torch.zeros(len(rows), longest, dtype=torch.long)
    places_RS = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        start = longest - len(row.tail_SD)
        embeds_RSD[i, start:] = row.tail_SD
        mask_RS[i, start:] = 1
        places_RS[i, start:] = torch.tensor(list(row.positions))
    return embeds_RSD, mask_RS, places_RS
