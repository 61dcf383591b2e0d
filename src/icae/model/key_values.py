"""Key-value memory: the decoder reads the memory tokens' keys and values of every layer.

For a span of L tokens with K memory tokens, weights W frozen, the LoRA's update dW on the rows of
memory tokens alone:

- the span: an ordinary pass of the base (W), without gradient; its keys and values stay cached;
- memory token i: its input is the learned vector + the mean input embedding of chunk i, it stands
  at the chunk's centre c_i, and in every layer W + dW makes its queries, keys, values and
  MLP; it attends to all of the span and to memory tokens <= i; with `previous_spans` also to the
  slots of spans before it, which stand where their chunks do: left of the span, below 0;
- the memory: (k_i, v_i) of every layer, the keys turned back to position 0, so that one memory
  serves every placement.

The decoder reads it as past keys and values between two runs of objective tokens: at contiguous
positions for what is found or answered, on the document's own axis for what is written back (the
text restarts at its beginning, so each token stands beside the slot that holds it).

Source: Li et al. 2024 (500xCompressor, arXiv:2408.03094) for the form, Zhao et al. 2024 (UPL,
arXiv:2409.14364) for the positions.

Shape legend: B spans, L tokens of the longest, K most slots, H key-value heads, W head width,
M objective tokens on each side, P learned slots that lead or slots before a span, Y layers, D
hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.spans import SpanPlan, chunk_centres, chunk_of_tokens
from icae.config.types import FloatArray, Objective, TokenIds
from icae.model.around import embed
from icae.model.decoder import DecoderRow, KeyValues, joined, label_logits, places_of, read, stacked
from icae.model.encoder import chunk_means
from icae.model.memory_model import MemoryModel
from icae.model.objectives import DecoderTask
from icae.model.positions import document_places, key_value_positions
from icae.model.rotary import key_turns


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyValueMemory:
    """The memory of one context.

    Attributes:
        key_values: Keys, as if at position 0, and values of every layer, [1, H, K, W].
        places: Position of each slot on the document's own axis, the centre of its chunk.
    """

    key_values: KeyValues
    places: Sequence[int]


class KeyValueModel(MemoryModel[KeyValues, KeyValueMemory]):
    """An encoder that writes keys and values, and the frozen decoder that reads them.

    Args:
        decoder: The base model; frozen in place and never modified.
        config: Architecture; layout and slot head are not read.
        seed: Seed of the new weights.

    Raises:
        BaseModelError: If the keys of this base cannot be moved to other positions.
    """

    def __init__(self, decoder: PreTrainedModel, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__(decoder, config, seed=seed)
        self.turns = key_turns(decoder)
        self.lead_PY2HW: nn.Parameter | None = None
        if config.lead_slots:
            self.lead_PY2HW = nn.Parameter(self._untrained_lead(config.lead_slots))

    def of_spans(self, parts: Sequence[KeyValues], plans: Sequence[SpanPlan]) -> KeyValueMemory:
        """Keys and values of all spans."""
        places = document_places([(p.length, p.slots) for p in plans])
        return KeyValueMemory(key_values=joined(parts), places=places)

    def encode_spans(
        self,
        spans: Sequence[TokenIds],
        slots: Sequence[int],
        read_before: Sequence[KeyValues] | None = None,
        previous: Sequence[KeyValues | None] = (),
    ) -> list[KeyValues]:
        """Keys, as if at position 0, and values of each span's memory tokens.

        Args:
            spans: Token ids of each span, at most `span_length` each.
            slots: Slots K_i for each span, at most its length.
            read_before: What the base made of each span, [1, H, L_i, W], its first token at
                position 0: then memory tokens alone are computed. None: it reads them here.
            previous: Slots before each span, [1, H, P_i, W], at their positions, or None.

        Returns:
            For each span the pairs of every layer, [1, H, K_i, W], with gradient.
        """
        longest, most = max(map(len, spans)), max(slots)
        ids_BL = np.zeros((len(spans), longest), dtype=np.int64)
        chunk_BL = np.full_like(ids_BL, most)
        mask_BL = np.zeros_like(ids_BL)
        mask_BK = np.zeros((len(spans), most), dtype=np.int64)
        centre_BK = np.zeros_like(mask_BK)
        for row, (own, k) in enumerate(zip(spans, slots, strict=True)):
            ids_BL[row, : len(own)] = own
            chunk_BL[row, : len(own)] = chunk_of_tokens(len(own), k)
            mask_BL[row, : len(own)] = mask_BK[row, :k] = 1
            centre_BK[row, :k] = chunk_centres(len(own), k)
        arrays = (ids_BL, chunk_BL, mask_BL, mask_BK, centre_BK)
        ids, chunk, seen_BL, mask, centre = (torch.from_numpy(a).to(self.device) for a in arrays)
        embeds_BLD = embed(self.decoder, ids).detach()
        if read_before is not None:
            seen, seen_BL = stacked(read_before)
        else:
            with torch.no_grad():
                places_1L = torch.arange(longest, device=self.device)[None]
                seen = read(self.decoder, embeds_BLD, places_1L)
        inputs_BKD = self._inputs(embeds_BLD, chunk, most)
        before, before_BP = stacked(previous or [None] * len(spans))
        past = joined([before, seen]) if before else seen
        mask_BP = torch.cat([before_BP.to(self.device), seen_BL.to(self.device), mask], dim=1)
        made = read(self.adapted, inputs_BKD, centre, past=past, mask_RP=mask_BP)
        start = past[0][0].shape[2]
        layers = places_of(made, start, start + most)
        return [
            tuple(
                (turn(keys[row, None, :, :k].float(), -centre[row, :k]), values[row, None, :, :k])
                for turn, (keys, values) in zip(self.turns, layers, strict=True)
            )
            for row, k in enumerate(slots)
        ]

    def encode_texts(
        self, texts: Sequence[Sequence[TokenIds]], slots: Sequence[Sequence[int]]
    ) -> list[list[KeyValues]]:
        """The same, or span by span of every text, each behind the slots of those before it."""
        if not self.config.previous_spans:
            return super().encode_texts(texts, slots)
        made: list[list[KeyValues]] = [[] for _ in texts]
        for i in range(max(map(len, texts))):
            rows = [row for row, own in enumerate(texts) if i < len(own)]
            first = max(0, i - self.config.previous_spans)
            before = [
                self._left_of(made[row][first:], [len(ids) for ids in texts[row][first:i]])
                for row in rows
            ]
            ids, counts = [texts[row][i] for row in rows], [slots[row][i] for row in rows]
            for row, own in zip(rows, self.encode_spans(ids, counts, previous=before), strict=True):
                made[row].append(own)
        return made

    def _left_of(self, parts: Sequence[KeyValues], lengths: Sequence[int]) -> KeyValues | None:
        """Slots of spans of some tokens, placed left of position 0, where the next span begins."""
        if not parts:
            return None
        sizes = [(n, own[0][0].shape[2]) for n, own in zip(lengths, parts, strict=True)]
        return self.place(joined(parts), [at - sum(lengths) for at in document_places(sizes)])

    def _inputs(self, embeds_BLD: Tensor, chunk_BL: Tensor, slots: int) -> Tensor:
        """Inputs [B, K, D] of the memory tokens: learned vector + mean embedding of the chunk."""
        means_BKD = chunk_means(embeds_BLD, chunk_BL, slots)
        index_BK = torch.arange(slots, device=self.device).expand(len(embeds_BLD), -1)
        return (self.tokens.memory(index_BK) + means_BKD).to(self.dtype)

    def label_logits(
        self, memories: Sequence[KeyValueMemory], tasks: Sequence[DecoderTask]
    ) -> list[Tensor]:
        """Teacher-forced pass of the frozen decoder; see `MemoryModel.label_logits`."""
        fronts = {name: self.read_front(name) for name in {task.tokens for task in tasks}}
        rows = [
            self.row_behind(fronts[task.tokens], memory, task)
            for memory, task in zip(memories, tasks, strict=True)
        ]
        return label_logits(self.decoder, rows)

    def read_front(self, objective: Objective) -> KeyValues:
        """Keys and values [1, H, M, W] of the objective tokens before the memory."""
        front_MD = self.markers(objective)[: self.config.front]
        if not len(front_MD):
            return ()
        positions_1M = torch.arange(len(front_MD), device=self.device)[None]
        return read(self.decoder, front_MD[None], positions_1M)

    @torch.no_grad()
    def _untrained_lead(self, slots: int) -> Tensor:
        """Keys and values of the vocabulary's first tokens, float32."""
        ids_1P = torch.arange(slots, device=self.device)[None]
        made = read(self.decoder, embed(self.decoder, ids_1P), ids_1P)
        return pairs_of(
            [
                (turn(keys.float(), -ids_1P[0]), values)
                for turn, (keys, values) in zip(self.turns, made, strict=True)
            ]
        )

    def lead(self, objective: Objective) -> KeyValues:
        """Keys, as if at position 0, and values of the learned slots before a memory, if any."""
        if self.lead_PY2HW is None or objective == "ae":
            return ()
        return layers_of_pairs(self.lead_PY2HW)

    def lead_vectors(self) -> FloatArray | None:
        """The learned slots; see `MemoryModel.lead_vectors`."""
        if self.lead_PY2HW is None:
            return None
        return self.lead_PY2HW.detach().float().cpu().numpy().copy()

    def place(self, key_values: KeyValues, positions: Sequence[int]) -> KeyValues:
        """A memory with its keys, as if at 0, at positions [K]; in the decoder's dtype."""
        positions_K = torch.tensor(list(positions), device=self.device)
        rotations = {turn: turn.rotation(positions_K) for turn in set(self.turns)}
        return tuple(
            (turn.turned(keys, *rotations[turn]).to(self.dtype), values.to(self.dtype))
            for turn, (keys, values) in zip(self.turns, key_values, strict=True)
        )

    def row(self, memory: KeyValueMemory, task: DecoderTask) -> DecoderRow:
        """``[front ; memory ; objective tokens ; ids]``; written back on the document's axis."""
        return self.row_behind(self.read_front(task.tokens), memory, task)

    def row_behind(self, front: KeyValues, memory: KeyValueMemory, task: DecoderTask) -> DecoderRow:
        """The row behind the objective tokens in front, which were read."""
        front_end = self.config.front
        behind_MD = self.markers(task.tokens)[-self.config.objective_tokens :]
        lead = self.lead(task.tokens)
        slots = joined([lead, memory.key_values]) if lead else memory.key_values
        places = [*range(self.config.lead_slots if lead else 0), *memory.places]
        positions = key_value_positions(
            task.tokens, places, len(task.input_ids), front=front_end, behind=len(behind_MD)
        )
        past_end = front_end + len(places)
        past = self.place(slots, positions[front_end:past_end])
        size = len(positions) - past_end
        return DecoderRow(
            ids=task.input_ids,
            positions=positions[past_end:],
            scored=slice(size - task.labels, size),
            inputs_FD=behind_MD,
            past=joined([front, past]) if front else past,
        )


def pairs_of(layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Keys and values of every layer, [1, H, K, W] each, as one array [K, Y, 2, H, W], float32."""
    return torch.stack([torch.cat(pair).float().permute(2, 0, 1, 3) for pair in layers], dim=1)


def layers_of_pairs(pairs_KY2HW: Tensor) -> KeyValues:
    """Keys and values of every layer, [1, H, K, W] each, of an array of them."""
    return tuple(
        (keys_KHW.transpose(0, 1)[None], values_KHW.transpose(0, 1)[None])
        for keys_KHW, values_KHW in pairs_KY2HW.permute(1, 2, 0, 3, 4)
    )
