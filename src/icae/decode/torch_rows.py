"""Decoding of several rows at once, with key-value caches of their own lengths.

A row is what one answer is read from. Its front part may have been read before, once for
all rows that share it; the rest is its tail. Shorter fronts and tails are padded on the
left and masked, and a row that ends leaves the batch, so what a row writes does not
depend on its neighbours.

Shape legend: R rows, P places of the longest front, S places of the longest tail,
H key-value heads, W head width, D hidden size.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from icae.decode.batching import Step
from icae.decode.sampling import Sampler
from icae.model.around import body_of, embed, vocabulary_logits
from icae.model.decoder import KeyValues, places_of, read, stacked


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one answer of at most `limit` tokens is read from.

    Attributes:
        front: Keys and values (R = 1) of what was read before, or None.
        tail_SD: Decoder inputs that follow, at least one.
        positions: Their positions; the answer goes on behind the last.
        sampler: Chooses its tokens, or None for the most likely ones.
    """

    front: KeyValues | None
    tail_SD: Tensor
    positions: Sequence[int]
    limit: int
    sampler: Sampler | None = None


@torch.inference_mode()
def read_fronts(
    decoder: PreTrainedModel, embeds: Sequence[Tensor], positions: Sequence[Sequence[int]]
) -> list[KeyValues]:
    """Keys and values [1, H, P_i, W] of the decoder inputs [P_i, D] of each row, in one pass.

    Rows are padded on the right, where causal attention cannot look.
    """
    inputs_RPD = pad_sequence(list(embeds), batch_first=True)
    places_RP = pad_sequence([torch.tensor(own) for own in positions], batch_first=True)
    layers = read(decoder, inputs_RPD, places_RP.to(inputs_RPD.device))
    return [
        places_of(tuple((k[row : row + 1], v[row : row + 1]) for k, v in layers), 0, len(own))
        for row, own in enumerate(positions)
    ]


@torch.inference_mode()
def next_tokens(
    decoder: PreTrainedModel,
    cache: DynamicCache,
    embeds_RSD: Tensor,
    mask_RP: Tensor,
    places_RS: Tensor,
    samplers: Sequence[Sampler | None] = (),
) -> Tensor:
    """Read inputs behind a cache: the next token of each row, [R], the most likely or sampled."""
    logits_RV = next_logits(decoder, cache, embeds_RSD, mask_RP, places_RS)
    token_R = logits_RV.argmax(dim=-1)
    for row, sampler in enumerate(samplers):
        if sampler is not None:
            token_R[row] = sampler.choose(logits_RV[row])
    return token_R


@torch.inference_mode()
def next_logits(
    decoder: PreTrainedModel,
    cache: DynamicCache,
    embeds_RSD: Tensor,
    mask_RP: Tensor,
    places_RS: Tensor,
) -> Tensor:
    """Read inputs behind a cache: logits of the next token of each row, [R, V]."""
    hidden_RSD = body_of(decoder)(
        inputs_embeds=embeds_RSD,
        attention_mask=mask_RP,
        position_ids=places_RS,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return vocabulary_logits(decoder, hidden_RSD[:, -1])


_Cached = tuple[DynamicCache, Tensor, Tensor, Tensor]
"""Rows after a step: their cache, its mask [R, P], their last tokens [R], and where these stand."""


class DecodingRows:
    """Rows that are decoded together, a token each at a time; others join between steps.

    A stop token is the last one of its row.

    Attributes:
        keys: What its caller calls each row that goes on, in their order.
    """

    _mask_RP: Tensor
    _token_R: Tensor
    _place_R: Tensor

    def __init__(self, decoder: PreTrainedModel, stop_ids: Collection[int]) -> None:
        self._decoder = decoder
        self._stop_ids = stop_ids
        self._cache = DynamicCache()
        self._left: list[int] = []
        self._samplers: list[Sampler | None] = []
        self._begun: list[_Cached] = []
        self.keys: list[int] = []

    def __len__(self) -> int:
        return len(self.keys)

    @torch.inference_mode()
    def add(self, rows: Mapping[int, Row]) -> Step:
        """Read rows, at least one, and decode them with the others; their first tokens."""
        past, mask_RP = stacked([row.front for row in rows.values()])
        cache = DynamicCache(past)
        embeds_RSD, tail_mask_RS, places_RS = _tails(list(rows.values()))
        device = embeds_RSD.device
        mask_RP = torch.cat([mask_RP, tail_mask_RS], dim=1).to(device)
        samplers = [row.sampler for row in rows.values()]
        token_R = next_tokens(
            self._decoder, cache, embeds_RSD, mask_RP, places_RS.to(device), samplers
        )
        # They join the others when these go on: their first tokens do not wait for that.
        self._begun.append((cache, mask_RP, token_R, places_RS[:, -1].to(device)))
        self.keys += rows
        self._samplers += samplers
        self._left += [row.limit for row in rows.values()]
        return self._taken(list(rows), token_R)

    @torch.inference_mode()
    def step(self) -> Step:
        """One more token of every row."""
        self._join()
        self._place_R = self._place_R + 1
        self._mask_RP = torch.cat([self._mask_RP, self._mask_RP.new_ones(len(self.keys), 1)], dim=1)
        embeds_RD = embed(self._decoder, self._token_R)
        self._token_R = next_tokens(
            self._decoder,
            self._cache,
            embeds_RD[:, None],
            self._mask_RP,
            self._place_R[:, None],
            self._samplers,
        )
        return self._taken(list(self.keys), self._token_R)

    def row(self, index: int) -> KeyValues:
        """Keys and values of all that a row has read, a copy."""
        read_P = self._mask_RP[index].bool()
        return tuple(
            (k[index][None, :, read_P], v[index][None, :, read_P]) for k, v, _ in self._cache
        )

    def leave(self, keys: Collection[int]) -> None:
        """Give rows up."""
        kept = [i for i, key in enumerate(self.keys) if key not in keys]
        if len(kept) < len(self.keys):
            self._keep(kept)

    def _join(self) -> None:
        """Put the rows that have begun beside the others."""
        others = len(self.keys) - sum(len(token_R) for _, _, token_R, _ in self._begun)
        for cache, mask_RP, token_R, place_R in self._begun:
            if others:
                cache, mask_RP = _beside(self._cache, self._mask_RP, cache, mask_RP)
                token_R = torch.cat([self._token_R, token_R])
                place_R = torch.cat([self._place_R, place_R])
            self._cache, self._mask_RP = cache, mask_RP
            self._token_R, self._place_R = token_R, place_R
            others = len(token_R)
        self._begun = []

    def _taken(self, keys: list[int], token_R: Tensor) -> Step:
        """Count the tokens of the last rows, and let those go that have ended."""
        tokens = token_R.tolist()
        start = len(self.keys) - len(keys)
        for i, token in enumerate(tokens, start=start):
            self._left[i] = 0 if token in self._stop_ids else self._left[i] - 1
        kept = [i for i, left in enumerate(self._left) if left > 0]
        if len(kept) < len(self.keys):
            self._keep(kept)
        return dict(zip(keys, tokens, strict=True))

    @torch.inference_mode()
    def _keep(self, kept: list[int]) -> None:
        """Go on with some rows alone, without the places that only others took."""
        self._join()
        self.keys = [self.keys[i] for i in kept]
        self._left = [self._left[i] for i in kept]
        self._samplers = [self._samplers[i] for i in kept]
        if not kept:
            self._cache = DynamicCache()
            return
        rows = torch.tensor(kept, device=self._mask_RP.device)
        mask_RP = self._mask_RP[rows]
        unused = int(mask_RP.amax(dim=0).argmax())
        self._mask_RP = mask_RP[:, unused:]
        self._token_R, self._place_R = self._token_R[rows], self._place_R[rows]
        self._cache = DynamicCache(
            [(k[rows, :, unused:], v[rows, :, unused:]) for k, v, _ in self._cache]
        )


def greedy_rows(
    decoder: PreTrainedModel, rows: Sequence[Row], stop_ids: Collection[int]
) -> Iterator[Step]:
    """Most likely next tokens of all rows, by index, step by step, until each has ended."""
    decoding = DecodingRows(decoder, stop_ids)
    begun = {i: row for i, row in enumerate(rows) if row.limit > 0}
    if begun:
        yield decoding.add(begun)
    while decoding:
        yield decoding.step()


def _beside(
    cache: DynamicCache, mask_RP: Tensor, other: DynamicCache, other_mask_RP: Tensor
) -> tuple[DynamicCache, Tensor]:
    """The rows of two caches in one, the shorter ones padded on the left; and their masks."""
    longest = max(mask_RP.shape[1], other_mask_RP.shape[1])

    def both(*pair_RHPW: Tensor) -> Tensor:
        lacking = [longest - t_RHPW.shape[2] for t_RHPW in pair_RHPW]
        return torch.cat(
            [pad(t, (0, 0, n, 0)) if n else t for t, n in zip(pair_RHPW, lacking, strict=True)]
        )

    layers = [
        (both(keys, other_keys), both(values, other_values))
        for (keys, values, _), (other_keys, other_values, _) in zip(cache, other, strict=True)
    ]
    masks = [pad(own_RP, (longest - own_RP.shape[1], 0)) for own_RP in (mask_RP, other_mask_RP)]
    return DynamicCache(layers), torch.cat(masks)


def _tails(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [R, S, D], mask [R, S] and positions [R, S] of the tails, padded on the left."""
    places = [torch.tensor(list(row.positions)) for row in rows]
    padded = functools.partial(pad_sequence, batch_first=True, padding_side="left")
    ones = [torch.ones_like(own) for own in places]
    return padded([row.tail_SD for row in rows]), padded(ones), padded(places)
