"""GIST: a context is read into the keys and values of gist tokens, all that later tokens see.

Source: Mu et al. 2023 (arXiv:2304.08467). Gist tokens stand behind a context; the attention
mask hides the context from every token after them, so what those need of it has to pass
through the keys and values of the gist tokens, in every layer.

Here the mask is kept by construction. One pass reads ``[context ; gist tokens]``; the keys
and values of the gist tokens alone are handed to the pass that reads on. With the same weights
in both passes that is the original's single pass under its mask, to the last bit of
rounding (a test holds it to that).

What differs from the original, so that a comparison with the autoencoder is one of method:

- The decoder is frozen. The original trains one model that both writes the gist and reads it; here
  the first pass goes through the LoRA, the second through the base weights, which nothing
  teaches to read what the first one writes.
- The objectives, the data and the learned objective tokens before what is written are those
  of the recipe, where the original is tuned on instructions alone.
- Spans of a long context are read one by one, each at its place in the document, and the
  decoder sees the gist tokens of all; the original has one prompt.
- Where gist tokens stand is the setting `layout` of `ModelConfig`. The original's is ``default``:
  behind the context, what follows stands behind them. ``uniform-encoder`` and ``uniform`` are one
  here, as keys carry their positions along: gist token i at the centre of the i-th chunk, what
  follows behind the context. One embedding for all gist tokens (``memory_embedding:
  shared``) is the original's.

Shape legend: N spans, S places of the longest row, R decoder rows, K gist tokens, M
objective tokens, H key-value heads, W head width, T scored targets, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from icae.config import ModelConfig
from icae.config.parsing import check
from icae.config.spans import SpanPlan, plan_spans
from icae.config.types import Objective, TokenIds
from icae.errors import TrainingError
from icae.model.adapted_decoder import AdaptedDecoder
from icae.model.encoder import build_batch, memory_inputs
from icae.model.icae import NO_KL, Sample, score_taught, teacher_log_probs
from icae.model.key_values import KeyValues, stacked
from icae.model.memory_tokens import MemoryTokens
from icae.model.objectives import DecoderTask
from icae.model.positions import encoder_positions
from icae.model.scoring import TaskScore, score_task

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True, kw_only=True)
class GistMemory:
    """What the decoder reads in place of one context.

    Attributes:
        key_values: Keys and values [1, H, K, W] of its gist tokens in every layer.
        end: Position of what follows.
    """

    key_values: KeyValues
    end: int

    @property
    def places(self) -> int:
        """Gist tokens K."""
        return int(self.key_values[0][0].shape[2])


class GistModel(AdaptedDecoder):
    """A LoRA that writes gist tokens, and the frozen decoder that reads them.

    Args:
        decoder: The base model; frozen in place and never modified.
        config: Span length, layout, memory embedding, objective tokens and LoRA are read;
            there is no slot head.
        seed: Seed of the new weights.

    Raises:
        ConfigError: If objective tokens are to stand before the gist tokens too, or the
            encoder has none.
    """

    def __init__(self, decoder: PreTrainedModel, config: ModelConfig, *, seed: int = 0) -> None:
        check(config.framing == "behind", "GIST has one framing.", config.framing, "behind")
        check(
            config.reading == "memory-tokens",
            "GIST reads at gist tokens.",
            config.reading,
            "model.reading: memory-tokens",
        )
        super().__init__(decoder, config, seed=seed)
        embedding_VD = decoder.get_input_embeddings().weight
        self.tokens = MemoryTokens(config, embedding_VD, torch.Generator().manual_seed(seed))
        self.tokens.to(embedding_VD.device)

    def calibrate(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> None:
        """Nothing to fit: keys and values are read as they are."""

    def train(self, mode: bool = True) -> GistModel:
        """Set the mode; decoder and LoRA always compute as in eval mode."""
        super().train(mode)
        self.lora.eval()
        self.decoder.eval()
        return self

    def checkpoint_activations(self) -> None:
        """Refused: recomputed layers give no keys and values.

        Raises:
            TrainingError: Always.
        """
        raise TrainingError(
            "GIST cannot recompute activations: its memory is a key-value cache.",
            got="run.gradient_checkpointing: true",
            expected="false",
            fix="--set run.gradient_checkpointing=false (and a smaller optim.micro_batch_size).",
        )

    def compile_layers(self) -> None:
        """Refused: the layers are run with caches that grow.

        Raises:
            TrainingError: Always.
        """
        raise TrainingError(
            "GIST cannot be compiled: its memory is a key-value cache.",
            got="run.compile: layers",
            expected="none",
            fix="--set run.compile=none.",
        )

    def shard_layers(self, mesh: DeviceMesh) -> None:
        """Refused: its layers were never run in shards.

        Args:
            mesh: The processes.

        Raises:
            TrainingError: Always.
        """
        raise TrainingError(
            "GIST is trained with whole weights on every process.",
            got="sharded weights (FSDP)",
            fix="Launch without an FSDP configuration.",
        )

    def encode(self, contexts: Sequence[TokenIds], ratios: Sequence[float]) -> list[GistMemory]:
        """Read contexts into gist tokens, all spans in one pass.

        Args:
            contexts: Token ids of each context.
            ratios: Compression ratio of each.
        """
        plans = [
            plan_spans(len(ids), span_length=self.config.span_length, ratio=own)
            for ids, own in zip(contexts, ratios, strict=True)
        ]
        starts = [self._starts(own) for own in plans]
        made = self._read_spans(
            [
                ids[p.token_start : p.token_end]
                for ids, own in zip(contexts, plans, strict=True)
                for p in own
            ],
            [p.slots for own in plans for p in own],
            [start for own in starts for start in own[:-1]],
        )
        return [
            GistMemory(key_values=_joined([next(made) for _ in own]), end=places[-1])
            for own, places in zip(plans, starts, strict=True)
        ]

    def _starts(self, plans: Sequence[SpanPlan]) -> list[int]:
        """Position at which each span begins, and that of what follows the last one."""
        starts = [0]
        for plan in plans:
            places = encoder_positions(self.config.layout, plan.length, plan.slots)
            starts.append(starts[-1] + max(places) + 1)
        return starts

    def _read_spans(
        self, spans: Sequence[TokenIds], slots: Sequence[int], starts: Sequence[int]
    ) -> Iterator[KeyValues]:
        """Keys and values of the gist tokens of each span, with gradient to the LoRA.

        As in `read_memory_tokens`, the mask of ones keeps transformers from cutting the rows
        at jumps of the positions, and causal attention keeps the padding out.
        """
        batch = build_batch(spans, slots, self.config, self.device)
        _, inputs_NSD = memory_inputs(self.lora, self.tokens, batch)
        first_N = torch.tensor(starts, device=self.device)
        cache = DynamicCache()
        self.lora.get_base_model().base_model(
            inputs_embeds=inputs_NSD,
            attention_mask=torch.ones_like(batch.ids_BS),
            position_ids=batch.positions_BS + first_N[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        layers = [(keys, values) for keys, values, *_ in cache]
        for row, (ids, k) in enumerate(zip(spans, slots, strict=True)):
            places = slice(len(ids), len(ids) + k)
            yield tuple(
                (keys[row : row + 1, :, places], values[row : row + 1, :, places])
                for keys, values in layers
            )

    def markers(self, objective: Objective) -> Tensor:
        """The objective tokens as the decoder reads them behind a memory, [M, D]."""
        return self.tokens.objective(objective).to(self.dtype)

    def label_logits(
        self, memories: Sequence[GistMemory], tasks: Sequence[DecoderTask]
    ) -> list[Tensor]:
        """Teacher-forced pass of the frozen decoder over ``[gist tokens ; objective ; ids]``.

        Args:
            memories: The memory of each row.
            tasks: The task of each row.

        Returns:
            Logits [T, V] of each row's scored targets, float32.
        """
        embed, markers = self.decoder.get_input_embeddings(), self.config.objective_tokens
        size = markers + max(len(task.input_ids) for task in tasks)
        ids_RS = np.zeros((len(tasks), size), dtype=np.int64)
        positions_RS = np.zeros_like(ids_RS)
        for row, (memory, task) in enumerate(zip(memories, tasks, strict=True)):
            end = markers + len(task.input_ids)
            ids_RS[row, markers:end] = task.input_ids
            positions_RS[row, :end] = memory.end + np.arange(end)
        tokens_RSD = embed(torch.from_numpy(ids_RS).to(self.device))
        rows = [
            torch.cat([self.markers(task.objective), tokens_RSD[row, markers:]])
            for row, task in enumerate(tasks)
        ]
        cache, mask_RP = stacked([memory.key_values for memory in memories])
        mask = torch.cat([mask_RP, torch.ones(len(tasks), size, dtype=torch.long)], dim=1)
        hidden_RSD = self.decoder.base_model(
            inputs_embeds=torch.stack(rows),
            attention_mask=mask.to(self.device),
            position_ids=torch.from_numpy(positions_RS).to(self.device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        picked = []
        for row, task in enumerate(tasks):
            labels = torch.from_numpy(task.label_mask).to(self.device)
            # The output at the last objective token predicts the first target.
            picked.append(hidden_RSD[row, markers - 1 : markers - 1 + len(task.target_ids)][labels])
        logits_TV = self.decoder.get_output_embeddings()(torch.cat(picked)).float()
        return list(logits_TV.split([task.labels for task in tasks]))

    def score(
        self, memories: Sequence[GistMemory], tasks: Sequence[DecoderTask]
    ) -> list[TaskScore]:
        """Teacher-forced losses of every task; arguments as for `label_logits`."""
        logits = self.label_logits(memories, tasks)
        return [score_task(row_TV, task) for row_TV, task in zip(logits, tasks, strict=True)]

    def forward(
        self, samples: Sequence[Sample], *, kl_shares: Mapping[Objective, float] = NO_KL
    ) -> list[TaskScore]:
        """Read every context once and score every task behind its gist tokens.

        Args:
            samples: Samples of any lengths, ratios and numbers of spans.
            kl_shares: As for `IcaeModel.forward`.

        Returns:
            Scores in order of samples, then of their tasks.
        """
        made = self.encode([s.context_ids for s in samples], [s.ratio for s in samples])
        memories = [memory for s, memory in zip(samples, made, strict=True) for _ in s.tasks]
        tasks = [task for sample in samples for task in sample.tasks]
        logits = self.label_logits(memories, tasks)
        teachers = teacher_log_probs(self.decoder, samples, kl_shares)
        return score_taught(logits, tasks, teachers, kl_shares)


def _joined(spans: Sequence[KeyValues]) -> KeyValues:
    """Keys and values of several spans one after another."""
    return tuple(
        (torch.cat([keys for keys, _ in layer], dim=2), torch.cat([v for _, v in layer], dim=2))
        for layer in zip(*spans, strict=True)
    )
