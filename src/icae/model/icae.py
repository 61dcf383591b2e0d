"""The in-context autoencoder: a memory of slots, which the decoder reads as input embeddings.

Source: Ge et al. 2024 (arXiv:2307.06945), section 2.

Shape legend: F inputs before the ids, K slots, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.spans import SpanPlan
from icae.config.types import Objective, TokenIds
from icae.model.around import embed, input_table
from icae.model.decoder import DecoderRow
from icae.model.encoder import build_batch, read_memory_tokens
from icae.model.memory_model import MemoryModel
from icae.model.objectives import DecoderTask
from icae.model.positions import decoder_positions
from icae.model.slot_head import SlotHead


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """The memory of one context.

    Attributes:
        slots_KD: Slots of all its spans, in the decoder's dtype.
        spans: (context tokens, slots) of each span.
    """

    slots_KD: Tensor
    spans: Sequence[tuple[int, int]]


def rms(tensor: Tensor) -> float:
    """Root mean square of all elements."""
    return float(tensor.detach().float().pow(2).mean().sqrt())


class IcaeModel(MemoryModel[Tensor, Slots]):
    """The autoencoder of the paper; arguments as for `MemoryModel`."""

    def __init__(self, decoder: PreTrainedModel, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__(decoder, config, seed=seed)
        embedding_VD = input_table(decoder)
        self.embedding_rms = rms(embedding_VD)
        width = embedding_VD.shape[1]
        self.head = SlotHead(config, embedding_rms=self.embedding_rms, hidden_size=width)
        self.head.to(embedding_VD.device)

    def encode_spans(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> list[Tensor]:
        """Slots of each span, [K_i, D], in the decoder's dtype."""
        batch = build_batch(spans, slots, self.config.layout, self.device)
        hidden, means_BKD = read_memory_tokens(self.adapted, self.tokens, batch)
        return [
            self.head(hidden_KD, means_BKD[row, :k]).to(self.dtype)
            for row, (hidden_KD, k) in enumerate(zip(hidden, slots, strict=True))
        ]

    def of_spans(self, parts: Sequence[Tensor], plans: Sequence[SpanPlan]) -> Slots:
        """The slots of all spans."""
        return Slots(slots_KD=torch.cat([*parts]), spans=[(p.length, p.slots) for p in plans])

    @torch.no_grad()
    def calibrate(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> None:
        """Fit the slot head's standardisation to the hidden states of sample spans.

        Done once before training; the statistics are saved with the adapter.
        """
        batch = build_batch(spans, slots, self.config.layout, self.device)
        hidden, _ = read_memory_tokens(self.adapted, self.tokens, batch)
        self.head.calibrate(torch.cat(hidden))

    def frame(self, slots_KD: Tensor, objective: Objective) -> Tensor:
        """Slots between their objective tokens, as the decoder reads them: [F, D]."""
        marker_MD = self.markers(objective)
        behind_MD = marker_MD[len(marker_MD) - self.config.behind(objective) :]
        return torch.cat([marker_MD[: self.config.front], slots_KD, behind_MD])

    def row(self, memory: Slots, task: DecoderTask) -> DecoderRow:
        """``[slots ; objective tokens ; ids]``, objective tokens also in front if so framed.

        Where the adapter says so, an instruction has tokens before the slots, and the objective
        tokens again behind its prompt.
        """
        asking, spans, slots_KD = self.config.asking, memory.spans, memory.slots_KD
        ids, given = task.input_ids, task.unscored
        if task.objective == "ft" and asking.before:
            slots_KD = torch.cat([self._embedded(asking.before), slots_KD])
            spans = [(len(asking.before), len(asking.before)), *spans]
        inputs_FD = self.frame(slots_KD, task.tokens)
        if task.objective == "ft" and asking.closing == "objective":
            closing_MD = self.markers(task.tokens)[-self.config.objective_tokens :]
            inputs_FD = torch.cat([inputs_FD, self._embedded(ids[:given]), closing_MD])
            ids = ids[given:]
        behind = len(inputs_FD) - len(slots_KD) - self.config.front + len(ids)
        layout, front = self.config.layout, self.config.front
        positions = decoder_positions(layout, spans, behind, front=front)
        # The output at the last place before the targets predicts the first of them.
        scored = slice(len(positions) - task.labels, len(positions))
        return DecoderRow(ids=ids, positions=positions, scored=scored, inputs_FD=inputs_FD)

    def _embedded(self, ids: Sequence[int] | TokenIds) -> Tensor:
        """Token ids as the decoder reads them, [N, D]."""
        indices = torch.tensor([int(i) for i in ids], device=self.device)
        return embed(self.decoder, indices)
