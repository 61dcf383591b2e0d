"""AutoCompressor: summary vectors of a context made segment by segment, each from the earlier ones.

Source: Chevalier et al. 2023 (arXiv:2305.14788). A segment is read behind the summary
vectors of all segments before it, which stand there as a soft prompt; the last hidden states
at its summary tokens are its own summary vectors; those of all segments together
(*summary accumulation*) are what the decoder reads.

What differs from the original: docs/rivals.md. Its tokens and vectors: ``layout: default``,
``slot_head: plain``, ``memory_embedding: per-slot``. Of a context of one segment this is the
in-context autoencoder with the same settings.

Shape legend: B segments read together, P summary vectors before a segment, L its tokens, K its
summary tokens, S places of the longest row, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from icae.config.spans import SpanPlan
from icae.config.types import TokenIds
from icae.model.around import run_layers
from icae.model.encoder import build_batch, memory_inputs
from icae.model.icae import IcaeModel, Slots


class AutoCompressor(IcaeModel):
    """An in-context autoencoder whose spans are read behind the slots of the earlier ones."""

    def encode_planned(
        self, contexts: Sequence[Sequence[TokenIds]], plans: Sequence[Sequence[SpanPlan]]
    ) -> list[Slots]:
        """Summary vectors of whole contexts; the n-th segments of all are read together."""
        width = self.decoder.get_input_embeddings().weight.shape[1]
        nothing_PD = torch.zeros(0, width, device=self.device, dtype=self.dtype)
        summaries = [nothing_PD] * len(contexts)
        for step in range(max(map(len, contexts))):
            active = [i for i, own in enumerate(contexts) if step < len(own)]
            made = self._read_segments(
                [contexts[i][step] for i in active],
                [plans[i][step].slots for i in active],
                [summaries[i] for i in active],
            )
            for i, own_KD in zip(active, made, strict=True):
                summaries[i] = torch.cat([summaries[i], own_KD])
        return [
            Slots(slots_KD=slots_KD, spans=[(p.length, p.slots) for p in own])
            for slots_KD, own in zip(summaries, plans, strict=True)
        ]

    def _read_segments(
        self,
        segments: Sequence[TokenIds],
        slots: Sequence[int],
        before: Sequence[Tensor],
    ) -> list[Tensor]:
        """Summary vectors [K_i, D] of one segment of each context.

        Rows are ``[before ; segment ; summary tokens ; padding]``: `before` holds the summary
        vectors [P_i, D] of the segments before it.
        """
        fronts = [len(own_PD) for own_PD in before]
        batch = build_batch(segments, slots, self.config.layout, self.device, starts=fronts)
        inputs_BSD, mean_BKD = memory_inputs(self.adapted, self.tokens, batch)
        rows, positions = [], []
        for i, (own_PD, ids, k) in enumerate(zip(before, segments, slots, strict=True)):
            size = len(ids) + k
            rows.append(torch.cat([own_PD.to(inputs_BSD.dtype), inputs_BSD[i, :size]]))
            places = torch.arange(fronts[i], device=self.device)
            positions.append(torch.cat([places, batch.positions_BS[i, :size]]))
        hidden_BSD = run_layers(
            self.adapted,
            pad_sequence(rows, batch_first=True),
            pad_sequence(positions, batch_first=True),
        )
        return [
            self.head(hidden_BSD[i, len(row) - k : len(row)], mean_BKD[i, :k]).to(self.dtype)
            for i, (row, k) in enumerate(zip(rows, slots, strict=True))
        ]
