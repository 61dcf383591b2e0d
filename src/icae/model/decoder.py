"""The frozen decoder under teacher forcing: rows in, logits of the scored targets out.

A row is read behind slots (input embeddings), behind keys and values, or behind nothing.

Shape legend: R rows, P places of the longest past, F inputs before the ids, S inputs of the longest
row, T scored targets, H key-value heads, W head width, D hidden size, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from icae.config.types import KeyValueShape, TokenIds
from icae.errors import InputError
from icae.model.around import (
    PassEnded,
    embed,
    first_layers_given,
    layers_of,
    output_of,
    run_layers,
    vocabulary_logits,
)

PASS_TOKENS = {"cpu": 64, "cuda": 4096}
"""What a forward pass costs beside its tokens, in tokens, by the type of the device. The figure
of GPUs is an estimate from their launch times, not measured."""

KeyValues = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of every layer, each [R, H, places, W]."""


@torch.no_grad()
def key_value_shape(decoder: PreTrainedModel) -> KeyValueShape:
    """What a place of a decoder's key-value cache holds: of one token that is read."""
    ids = torch.zeros(1, 1, dtype=torch.long, device=decoder.get_input_embeddings().weight.device)
    layers = read(decoder, embed(decoder, ids), ids)
    _, heads, _, width = layers[0][0].shape
    return KeyValueShape(layers=len(layers), heads=heads, width=width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Begun:
    """What the first layers of a decoder made of a row: [S, D], alone or in a tuple."""

    layers: int
    hidden_SD: Tensor
    in_tuple: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderRow:
    """What the decoder reads in one row: ``[past ; inputs ; ids]``.

    Attributes:
        ids: Token ids.
        positions: Positions of inputs and ids, F + len(ids) of them.
        scored: At which of these places the output is wanted.
        inputs_FD: Input embeddings before the ids, in the decoder's dtype, or None.
        past: Keys and values read before everything, or None.
        begun: What the first layers made of it, so that the others alone run, or None.
    """

    ids: TokenIds
    positions: Sequence[int]
    scored: slice
    inputs_FD: Tensor | None = None
    past: KeyValues | None = None
    begun: Begun | None = None

    @classmethod
    def plain(cls, ids: TokenIds, *, scored: int) -> DecoderRow:
        """Tokens without a memory and an objective token, of which so many last ones are scored.

        An InputError if that is none, or the first one too, which nothing predicts.
        """
        last = len(ids) - 1
        if not 1 <= scored <= last:
            raise InputError(
                "The plain decoder cannot score that many tokens.",
                got=f"{scored} of {len(ids)}",
                expected="at least one, and one token before them",
            )
        return cls(ids=ids, positions=range(len(ids)), scored=slice(last - scored, last))


class _KeysAndValues(DynamicCache):  # type: ignore[misc]
    """A cache that ends the pass that fills it: what the last layer makes of it is not wanted."""

    def __init__(self, past: KeyValues | None, layers: int) -> None:
        super().__init__(past)
        self._last = layers - 1

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """Take keys and values of a layer."""
        found = super().update(key_states, value_states, layer_idx, *rest, **named)
        if layer_idx == self._last:
            raise PassEnded
        return found


def read(
    model: PreTrainedModel,
    inputs_RSD: Tensor,
    positions_RS: Tensor,
    *,
    past: KeyValues | None = None,
    mask_RP: Tensor | None = None,
) -> KeyValues:
    """Read decoder inputs for their keys and values, with gradient where the weights have one.

    They are read behind a past of P places, if there is one; the mask, of a long integer, says
    which of the P + S places hold something (None: all). Rows padded on the right need none.

    Returns:
        Keys and values of the P + S places.
    """
    cache = DynamicCache(past)
    if torch.is_inference_mode_enabled():
        layers = model.config.get_text_config(decoder=True).num_hidden_layers
        cache = _KeysAndValues(past, layers)
    with suppress(PassEnded):
        run_layers(model, inputs_RSD, positions_RS, cache=cache, mask_RP=mask_RP)
    return tuple((keys, values) for keys, values, *_ in cache)


def label_logits(decoder: PreTrainedModel, rows: Sequence[DecoderRow]) -> list[Tensor]:
    """Logits [T, V] of the scored places of each row, float32."""
    return in_one_product(decoder, scored_states(decoder, rows))


def scored_states(decoder: PreTrainedModel, rows: Sequence[DecoderRow]) -> list[Tensor]:
    """Last hidden states [T, D] of the scored places of each row; all or none have begun.

    Rows of like length share a forward pass.
    """
    return _scored(decoder, rows, _groups(decoder, rows))


@torch.no_grad()
def begun_rows(
    decoder: PreTrainedModel, rows: Sequence[DecoderRow], layers: int
) -> list[DecoderRow]:
    """The same rows with what so many first layers make of them, where its layers are known."""
    begun = list(rows)
    if len(layers_of(decoder)) != decoder.config.get_text_config(decoder=True).num_hidden_layers:
        return begun
    for group in _groups(decoder, rows):
        members = [rows[r] for r in group]
        output = output_of(decoder, layers - 1, functools.partial(_hidden, decoder, members))
        in_tuple = isinstance(output, tuple)
        for r, row, hidden_SD in zip(
            group, members, output[0] if in_tuple else output, strict=True
        ):
            own_SD = hidden_SD[: len(row.positions)]
            begun[r] = replace(row, begun=Begun(layers=layers, hidden_SD=own_SD, in_tuple=in_tuple))
    return begun


def _groups(decoder: PreTrainedModel, rows: Sequence[DecoderRow]) -> list[list[int]]:
    """Rows of like length, by their indices."""
    device = decoder.get_input_embeddings().weight.device
    sizes = [len(row.positions) for row in rows]
    return row_groups(sizes, pass_tokens=PASS_TOKENS.get(device.type, 0))


def logits_beside(
    decoder: PreTrainedModel, past: KeyValues, rows: Sequence[DecoderRow]
) -> list[Tensor]:
    """Logits [T, V] of rows behind one past, float32, in one pass that holds it once.

    The decoder has full attention in every layer, and the rows do not see each other. A past of
    their own is not looked at.
    """
    weight = decoder.get_input_embeddings().weight
    device, dtype = weight.device, weight.dtype
    sizes = [len(row.positions) for row in rows]
    seen_SS = torch.block_diag(*(torch.ones(size, size).tril() for size in sizes))
    seen_SP = torch.cat([torch.ones(sum(sizes), past[0][0].shape[2]), seen_SS], dim=1)
    inputs = [
        part_SD
        for row in rows
        for part_SD in (row.inputs_FD, embed(decoder, torch.from_numpy(row.ids).to(device)))
        if part_SD is not None
    ]
    (hidden_SD,) = run_layers(
        decoder,
        torch.cat(inputs)[None],
        torch.tensor([[p for row in rows for p in row.positions]], device=device),
        cache=DynamicCache(past),
        mask_RP=((1 - seen_SP) * torch.finfo(dtype).min).to(device, dtype)[None, None],
    )
    split = hidden_SD.split(sizes)
    return in_one_product(decoder, [own[row.scored] for row, own in zip(rows, split, strict=True)])


def plain_logits(decoder: PreTrainedModel, rows: Sequence[DecoderRow]) -> list[Tensor]:
    """Logits [scored, V] that predict the scored tokens of each row, float32, in one forward pass.

    A LoRA on the decoder gets gradients.
    """
    return in_one_product(decoder, _scored(decoder, rows, [list(range(len(rows)))]))


def _scored(
    decoder: PreTrainedModel, rows: Sequence[DecoderRow], groups: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Last hidden states [T, D] at scored places of rows, each group in one pass."""
    picked: dict[int, Tensor] = {}
    for group in groups:
        hidden_RSD = _hidden(decoder, [rows[r] for r in group])
        for row, hidden_SD in zip(group, hidden_RSD, strict=True):
            picked[row] = hidden_SD[rows[row].scored]
    return [picked[row] for row in range(len(rows))]


def in_one_product(decoder: PreTrainedModel, scored: Sequence[Tensor]) -> list[Tensor]:
    """Vocabulary logits of the last hidden states of each row, [T, D] each."""
    logits_TV = vocabulary_logits(decoder, torch.cat(list(scored)))
    return list(logits_TV.split([len(own) for own in scored]))


def _hidden(decoder: PreTrainedModel, rows: Sequence[DecoderRow]) -> Tensor:
    """Last hidden states [R, S, D] of rows padded on the right to the longest."""
    device = decoder.get_input_embeddings().weight.device
    ids_RS = np.zeros((len(rows), max(len(row.positions) for row in rows)), dtype=np.int64)
    positions_RS = np.zeros_like(ids_RS)
    for r, row in enumerate(rows):
        size = len(row.positions)
        ids_RS[r, size - len(row.ids) : size] = row.ids
        positions_RS[r, :size] = row.positions
    ids, positions = (torch.from_numpy(array).to(device) for array in (ids_RS, positions_RS))
    begun = [row.begun for row in rows if row.begun is not None]
    if begun:
        inputs_RSD = pad_sequence([own.hidden_SD for own in begun], batch_first=True)
        output = (inputs_RSD,) if begun[0].in_tuple else inputs_RSD
    else:
        inputs_RSD = output = _inputs(decoder, rows, ids)
    with first_layers_given(decoder, begun[0].layers if begun else 0, output):
        if all(row.past is None for row in rows):
            return run_layers(decoder, inputs_RSD, positions)
        past, mask_RP = stacked([row.past for row in rows])
        mask = torch.cat([mask_RP.to(device), torch.ones_like(ids)], dim=1)
        cache = DynamicCache(past)
        return run_layers(decoder, inputs_RSD, positions, cache=cache, mask_RP=mask)


def _inputs(decoder: PreTrainedModel, rows: Sequence[DecoderRow], ids_RS: Tensor) -> Tensor:
    """Decoder inputs [R, S, D]: those of a row, and its ids behind them."""
    return torch.stack(
        [
            tokens_SD
            if row.inputs_FD is None
            else torch.cat([row.inputs_FD, tokens_SD[len(row.inputs_FD) :]])
            for row, tokens_SD in zip(rows, embed(decoder, ids_RS), strict=True)
        ]
    )


def stacked(pasts: Sequence[KeyValues | None]) -> tuple[KeyValues, Tensor]:
    """The pasts of all rows as one, padded on the left, with gradient, and where it is filled.

    Keys and values, none where all are empty, and the mask [R, P], long.
    """
    lengths = [0 if past is None else past[0][0].shape[2] for past in pasts]
    longest = max(lengths)
    mask_RP = torch.zeros(len(pasts), longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask_RP[row, longest - length :] = 1
    known = [past for past in pasts if past is not None]
    if longest == 0 or not known:
        return (), mask_RP
    if min(lengths) == longest:
        layers_of_rows = zip(*known, strict=True)
        return tuple(
            (torch.cat([keys for keys, _ in rows]), torch.cat([values for _, values in rows]))
            for rows in layers_of_rows
        ), mask_RP
    layers: list[tuple[Tensor, Tensor]] = []
    for layer, pair in enumerate(known[0]):
        keys, values = (t.new_zeros(len(pasts), t.shape[1], longest, t.shape[3]) for t in pair)
        for row, past in enumerate(pasts):
            if past is not None:
                for target, own in zip((keys, values), past[layer], strict=True):
                    target[row, :, longest - lengths[row] :] = own[0]
        layers.append((keys, values))
    return tuple(layers), mask_RP


def places_of(past: KeyValues, start: int, end: int) -> KeyValues:
    """Keys and values of the places ``start..end`` alone."""
    return tuple((keys[:, :, start:end], values[:, :, start:end]) for keys, values in past)


def joined(parts: Sequence[KeyValues]) -> KeyValues:
    """Keys and values of several runs of places, one after another."""
    return tuple(
        (torch.cat([keys for keys, _ in layer], dim=2), torch.cat([v for _, v in layer], dim=2))
        for layer in zip(*parts, strict=True)
    )


def row_groups(sizes: Sequence[int], *, pass_tokens: int) -> list[list[int]]:
    """Split rows, by their indices, into groups each padded to its longest row, at the least cost.

    A group of n rows, the longest of s tokens, costs ``n * s + pass_tokens``.
    """
    order = sorted(range(len(sizes)), key=lambda row: sizes[row])
    # least[n]: cost of the n shortest rows, and where their last group begins.
    least = [(0, 0)]
    for end, last in enumerate(order, start=1):
        costs = ((least[i][0] + (end - i) * sizes[last] + pass_tokens, i) for i in range(end))
        least.append(min(costs))
    groups, end = [], len(order)
    while end:
        begin = least[end][1]
        groups.append(order[begin:end])
        end = begin
    return groups
