"""What differs between the forms of memory in torch: how spans are encoded and prefixes read.

Shape legend: F decoder inputs, K slots, Y layers, H key-value heads, W head width, D hidden size.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from icae.config.types import FloatArray, Objective, TokenIds
from icae.decode.prefix import Prefix, input_positions
from icae.decode.runtime import other_form
from icae.decode.torch_rows import read_fronts
from icae.memory import Embeddings, KeyValueSlots
from icae.memory.payload import ReadablePayload
from icae.model.around import embed
from icae.model.decoder import (
    Begun,
    KeyValues,
    begun_rows,
    joined,
    places_of,
    read,
    scored_states,
)
from icae.model.icae import IcaeModel, Slots
from icae.model.key_values import KeyValueMemory, KeyValueModel, layers_of_pairs, pairs_of
from icae.model.objectives import DecoderTask
from icae.model.positions import document_places


@dataclass(kw_only=True, eq=False)
class Reading:
    """A task behind slots that gradient steps move: it is read before every step.

    Attributes:
        spans: (tokens, slots) of each span of the slots.
        task: What the decoder does behind them.
        begun: What no step changes of it, found at the first reading.
    """

    spans: Sequence[tuple[int, int]]
    task: DecoderTask
    begun: Begun | None = None


Asked = tuple[Tensor, Reading]
"""Numbers of slots, with gradient, and what is read behind them."""

FIRST_TOKENS = 64
"""First tokens of spans whose keys and values are kept: those of a chat template's turns."""


class TorchForm(ABC):
    """One form of memory: the encoder that makes it, and what the decoder reads of it.

    Attributes:
        learning_rate: By which share of its scale a refinement step moves a number at first.
        kl_weight: Weight of what keeps refined slots good for more than writing back.
    """

    model: IcaeModel | KeyValueModel
    learning_rate: ClassVar[float]
    kl_weight: ClassVar[float]

    @abstractmethod
    def scale(self, numbers: Tensor) -> Tensor:
        """Size of the numbers that slots are made of, as far as it differs among them."""

    @abstractmethod
    def task_states(self, asked: Sequence[Asked]) -> list[Tensor]:
        """Last hidden states [T, D] at each task's scored targets, with gradient to the numbers."""

    @abstractmethod
    def encode(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> list[ReadablePayload]:
        """What the decoder gets in place of each span; one forward pass.

        Where the adapter's spans see those before them, they are those of one text, in order.
        """

    def past_places(self, prefix: Prefix) -> int:
        """Decoder places of a prefix that need no reading, as they are keys and values."""
        return 0

    def past(self, prefix: Prefix, known: KeyValues | None = None) -> KeyValues | None:
        """Keys and values of these places, the first of which may be known, or None."""
        return None

    @abstractmethod
    def inputs(self, prefix: Prefix) -> Tensor:
        """Decoder inputs of a prefix behind these places, [F, D]."""

    @abstractmethod
    def fronts(self, prefixes: Sequence[Prefix]) -> list[KeyValues]:
        """Keys and values of prefixes, at least their last objective token left out."""


@dataclass(frozen=True)
class SlotForm(TorchForm):
    """Slots: input embeddings, read like tokens; everything is read."""

    model: IcaeModel
    learning_rate: ClassVar[float] = 0.08
    kl_weight: ClassVar[float] = 1.0

    def scale(self, numbers: Tensor) -> Tensor:
        """The RMS of the input embeddings."""
        return torch.tensor(self.model.embedding_rms, device=numbers.device)

    def task_states(self, asked: Sequence[Asked]) -> list[Tensor]:
        """The decoder reads each row anew."""
        rows = [
            self.model.row(
                Slots(slots_KD=numbers_KD.to(self.model.dtype), spans=reading.spans), reading.task
            )
            for numbers_KD, reading in asked
        ]
        return scored_states(self.model.decoder, rows)

    def encode(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> list[ReadablePayload]:
        """Slots [K, D] of each span."""
        made = self.model.encode_spans(spans, slots)
        return [Embeddings(slots_KD=slots_KD.float().cpu().numpy()) for slots_KD in made]

    def inputs(self, prefix: Prefix) -> Tensor:
        """``[front ; memory ; objective]``; verbatim tokens are embedded as in any prompt."""
        parts = [part.read_by(self) for part in prefix.parts]
        nothing = self.model.markers(prefix.objective)[:0]
        return self.model.frame(torch.cat([nothing, *parts]), prefix.objective).detach()

    def fronts(self, prefixes: Sequence[Prefix]) -> list[KeyValues]:
        """All but the last objective token, read in one forward pass."""
        embeds = [self.inputs(prefix)[:-1] for prefix in prefixes]
        places = [
            input_positions(self.model.config, prefix, 0)[: len(own)]
            for own, prefix in zip(embeds, prefixes, strict=True)
        ]
        return read_fronts(self.model.decoder, embeds, places)

    def read_slots(self, slots_KD: FloatArray) -> Tensor:
        """Slots as decoder inputs, [K, D]."""
        slots = torch.from_numpy(np.ascontiguousarray(slots_KD))
        return slots.to(self.model.device, self.model.dtype)

    def read_tokens(self, token_ids: TokenIds) -> Tensor:
        """Token ids as decoder inputs, [N, D]."""
        return embedded(self.model.decoder, token_ids)

    def read_key_values(self, slots: KeyValueSlots) -> Tensor:
        """Refuse keys and values."""
        raise other_form("key-values", "embeddings")


class KeyValueForm(TorchForm):
    """Slots as keys and values: ``[front ; memory]`` is past, the objective tokens are read.

    Args:
        model: The model; its weights stay what they are.
    """

    learning_rate: ClassVar[float] = 0.04
    kl_weight: ClassVar[float] = 0.0

    def __init__(self, model: KeyValueModel) -> None:
        self.model: KeyValueModel = model
        self.config = model.config
        self._front = functools.cache(self._read_front)
        self._alone = functools.lru_cache(FIRST_TOKENS)(self._read_alone)

    def scale(self, numbers: Tensor) -> Tensor:
        """The RMS of the keys, and of the values, of each layer."""
        return numbers.pow(2).mean(dim=(0, 3, 4), keepdim=True).sqrt()

    def task_states(self, asked: Sequence[Asked]) -> list[Tensor]:
        """Gradients reach the upper half of the layers: all would take as many steps [measured].

        So the lower half is run once for each reading.
        """
        lower = len(self.model.turns) // 2
        rows = []
        for pairs_KY2HW, reading in asked:
            layers = tuple(
                pair if layer >= lower else (pair[0].detach(), pair[1].detach())
                for layer, pair in enumerate(layers_of_pairs(pairs_KY2HW))
            )
            memory = KeyValueMemory(key_values=layers, places=document_places(reading.spans))
            front = self._front(reading.task.tokens)
            rows.append(self.model.row_behind(front, memory, reading.task))
        new = [(row, own) for row, (_, own) in zip(rows, asked, strict=True) if own.begun is None]
        if lower and new:
            begun = begun_rows(self.model.decoder, [row for row, _ in new], lower)
            for row, (_, reading) in zip(begun, new, strict=True):
                reading.begun = row.begun
        rows = [replace(row, begun=own.begun) for row, (_, own) in zip(rows, asked, strict=True)]
        return scored_states(self.model.decoder, rows)

    def encode(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> list[ReadablePayload]:
        """Keys, as if at position 0, and values [K, Y, 2, H, W] of each span, as stored."""
        (made,) = self.model.encode_texts([spans], [slots])
        return [KeyValueSlots(pairs_KY2HW=pairs_of(layers).cpu().numpy()) for layers in made]

    def encode_read(
        self, spans: Sequence[TokenIds], slots: Sequence[int], seen: Sequence[KeyValues]
    ) -> list[ReadablePayload]:
        """The same of spans that were read, each alone; their keys are as if each began at 0.

        Attention rests on what stands first, wherever it has nothing to find. So the first
        token of a span counts as the encoder itself would read it, alone.
        """
        seen = [
            joined([self._alone(int(ids[0])), places_of(own, 1, len(ids))])
            for ids, own in zip(spans, seen, strict=True)
        ]
        return [
            KeyValueSlots(pairs_KY2HW=pairs_of(layers).cpu().numpy())
            for layers in self.model.encode_spans(spans, slots, seen)
        ]

    def _read_alone(self, token: int) -> KeyValues:
        """Keys and values of a token at position 0, with nothing before it."""
        inputs_11D = embedded(self.model.decoder, np.array([token]))[None]
        return read(self.model.decoder, inputs_11D, torch.zeros_like(inputs_11D[..., 0]).long())

    def moved(self, past: KeyValues, by: int) -> KeyValues:
        """Keys and values of places, so many positions further on."""
        return self.model.place(past, [by] * past[0][0].shape[2])

    def past_places(self, prefix: Prefix) -> int:
        """Front and memory."""
        return self.model.config.front + prefix.positions

    def past(self, prefix: Prefix, known: KeyValues | None = None) -> KeyValues:
        """Keys and values of front and memory, placed where the objective wants them."""
        start = at = self.model.config.front
        past = self._front(prefix.objective)
        if known is not None and known[0][0].shape[2] > start:
            past, start = known, known[0][0].shape[2]
        positions = input_positions(self.model.config, prefix, 0)
        for part in prefix.parts:
            begin, end = max(at, start), at + part.positions
            if begin < end:
                behind = _Behind(self.model, past, positions[begin:end])
                past = part.part(begin - at, part.positions).read_by(behind)
            at = end
        return past

    def inputs(self, prefix: Prefix) -> Tensor:
        """The objective tokens behind the memory."""
        behind = self.model.config.objective_tokens
        return self.model.markers(prefix.objective)[-behind:].detach()

    def fronts(self, prefixes: Sequence[Prefix]) -> list[KeyValues]:
        """Front and memory; a forward pass for every run of verbatim tokens alone."""
        return [self.past(prefix) for prefix in prefixes]

    @torch.no_grad()
    def _read_front(self, objective: Objective) -> KeyValues:
        """Keys and values of the objective tokens before the memory; of none, [1, H, 0, W]."""
        if self.model.config.front:
            return self.model.read_front(objective)
        marker_MD = self.model.markers(objective)[:1]
        (one,) = read_fronts(self.model.decoder, [marker_MD], [[0]])
        return places_of(one, 0, 0)


@dataclass(frozen=True)
class _Behind:
    """Puts a part of a prefix behind what comes before it."""

    model: KeyValueModel
    past: KeyValues
    positions: Sequence[int]

    def read_slots(self, slots_KD: FloatArray) -> KeyValues:
        raise other_form("embeddings", "key-values")

    def read_tokens(self, token_ids: TokenIds) -> KeyValues:
        """The decoder reads the tokens behind the past."""
        inputs_1ND = embedded(self.model.decoder, token_ids)[None]
        places_1N = torch.tensor([list(self.positions)], device=self.model.device)
        return read(self.model.decoder, inputs_1ND, places_1N, past=self.past)

    def read_key_values(self, slots: KeyValueSlots) -> KeyValues:
        """Keys are turned to their positions; bfloat16 goes to the device as it is."""
        pairs = _numbers(slots, self.model.device)
        if self.model.dtype == torch.float32:
            pairs = pairs.float()
        return joined([self.past, self.model.place(layers_of_pairs(pairs), self.positions)])


def _numbers(slots: KeyValueSlots, device: torch.device) -> Tensor:
    """The numbers [K, Y, 2, H, W]: bfloat16, or float32 where codes have steps; copied once."""
    codes = torch.from_numpy(np.concatenate([run.codes_KY2HW for run in slots.runs])).to(device)
    steps = [run.steps_Y2HW for run in slots.runs if run.steps_Y2HW is not None]
    if not steps:
        return codes.view(torch.bfloat16)
    steps_RY2HW = torch.from_numpy(np.stack(steps)).to(device).view(torch.bfloat16).float()
    sizes_R = torch.tensor([len(run) for run in slots.runs], device=device)
    return codes.float() * steps_RY2HW.repeat_interleave(sizes_R, dim=0)


def form_of(model: IcaeModel | KeyValueModel) -> TorchForm:
    """The form of a model's memories."""
    return KeyValueForm(model) if isinstance(model, KeyValueModel) else SlotForm(model)


def embedded(decoder: PreTrainedModel, token_ids: TokenIds) -> Tensor:
    """Token ids as decoder inputs, [N, D]."""
    with torch.inference_mode():
        device = decoder.get_input_embeddings().weight.device
        return embed(decoder, torch.from_numpy(np.asarray(token_ids, dtype=np.int64)).to(device))
