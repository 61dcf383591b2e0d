"""The in-context autoencoder: encoder, frozen decoder and their losses.

Shape legend: B samples, N spans of all samples, R decoder rows, S decoder places,
K slots, T scored targets, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from icae.config import ModelConfig
from icae.config.spans import plan_spans
from icae.config.types import Objective, TokenIds
from icae.errors import ConfigError
from icae.model.adapted_decoder import AdaptedDecoder
from icae.model.compilation import compile_layers
from icae.model.encoder import build_batch, encode, read
from icae.model.memory_tokens import MemoryTokens, SlotHead, rms
from icae.model.objectives import DecoderTask
from icae.model.plain_decoder import PlainRow, plain_logits
from icae.model.positions import decoder_positions
from icae.model.row_groups import PASS_TOKENS, row_groups
from icae.model.scoring import TaskScore, score_task
from icae.model.sharding import layers_of, own_frozen_weights, shard_layers

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

NO_KL: Mapping[Objective, float] = {}
"""Every loss is on the true tokens alone."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One context and what the decoder must do with its memory.

    Attributes:
        context_ids: The context's token ids, of any length; cut into spans.
        ratio: Compression ratio of its spans.
        tasks: Decoder tasks that share the one memory.
    """

    context_ids: TokenIds
    ratio: float
    tasks: tuple[DecoderTask, ...]


class IcaeModel(AdaptedDecoder):
    """Encoder and frozen decoder over one copy of the base weights.

    Args:
        decoder: Any Hugging Face causal LM with rotary positions. It is frozen in place
            and never modified.
        config: Architecture.
        seed: Seed of the new weights.
    """

    def __init__(self, decoder: PreTrainedModel, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__(decoder, config, seed=seed)
        embedding_VD = decoder.get_input_embeddings().weight
        self.embedding_rms = rms(embedding_VD)
        self.tokens = MemoryTokens(config, embedding_VD, torch.Generator().manual_seed(seed))
        self.head = SlotHead(
            config,
            embedding_rms=self.embedding_rms,
            hidden_size=embedding_VD.shape[1],
        )
        self._checkpointed: list[nn.Module] = []
        device = embedding_VD.device
        self.tokens.to(device)
        self.head.to(device)

    def fixed_state(self) -> dict[str, Tensor]:
        """State that is not all trained but belongs to the weights: the slot head's."""
        return self.head.state_dict()

    def load_fixed_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `fixed_state` gave."""
        self.head.load_state_dict(state)

    def train(self, mode: bool = True) -> IcaeModel:
        """Set the mode of the encoder; the decoder always computes as in eval mode."""
        super().train(mode)
        self.decoder.eval()
        for layer in self._checkpointed:
            # Only the layer's own flag, which turns recomputing on; its dropout stays off.
            layer.training = mode
        return self

    def checkpoint_activations(self) -> None:
        """Recompute activations in the backward pass of encoder and decoder: less memory."""
        for part in (self.decoder, self.lora.get_base_model()):
            part.gradient_checkpointing_enable({"use_reentrant": False})
        self._checkpointed = [
            m for m in self.decoder.modules() if isinstance(m, GradientCheckpointingLayer)
        ]

    def compile_layers(self, backend: str = "inductor") -> None:
        """Compile each transformer layer of encoder and decoder; see `compile_layers`."""
        compile_layers(self.decoder, self.lora.get_base_model(), backend=backend)

    def shard_layers(self, mesh: DeviceMesh) -> None:
        """Shard the frozen weights of encoder and decoder, each by itself, over processes.

        The two share their weights until then; a shard belongs to one module tree alone.
        """
        encoder = self.lora.get_base_model()
        for layer in layers_of(encoder):
            own_frozen_weights(layer)
        for part in (encoder, self.decoder):
            shard_layers(part, mesh)

    def encode_spans(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> list[Tensor]:
        """Slots of each span, [K_i, D], in the decoder's dtype.

        Args:
            spans: Token ids of each span, at most `span_length` each.
            slots: Slots K_i for each span, at most its length.
        """
        batch = build_batch(spans, slots, self.config, self.device)
        reading = self.config.reading
        encoded = encode(self.lora, self.tokens, self.head, batch, reading)
        return [slots_KD.to(self.dtype) for slots_KD in encoded]

    def encode_contexts(
        self, contexts: Sequence[Sequence[TokenIds]], slots: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Slots of whole contexts, [K, D] of all spans of each; spans do not see each other.

        Args:
            contexts: Token ids of the spans of each context, in order.
            slots: Slots for each of those spans.
        """
        made = iter(
            self.encode_spans(
                [piece for own in contexts for piece in own],
                [count for own in slots for count in own],
            )
        )
        return [torch.cat([next(made) for _ in own]) for own in contexts]

    @torch.no_grad()
    def calibrate(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> None:
        """Fit the slot head's standardisation to the hidden states of sample spans.

        Done once before training; the statistics are saved with the adapter.

        Args:
            spans: Token ids of typical spans.
            slots: Slots K_i for each span.
        """
        batch = build_batch(spans, slots, self.config, self.device)
        hidden, _ = read(self.lora, self.tokens, batch, self.config.reading)
        self.head.calibrate(torch.cat(hidden))

    def label_logits(
        self,
        memories: Sequence[Tensor],
        spans: Sequence[Sequence[tuple[int, int]]],
        tasks: Sequence[DecoderTask],
    ) -> list[Tensor]:
        """Teacher-forced pass of the frozen decoder over rows ``[slots ; objective ; ids]``.

        Rows of like length share a forward pass. Vocabulary logits are computed only where a
        label is, all rows in one product.

        Args:
            memories: Slots [K_r, D] of each row.
            spans: (context tokens, slots) of the spans behind each row's slots.
            tasks: The task of each row.

        Returns:
            Logits [T, V] of each row's scored targets, float32.
        """
        # The output at the last objective token predicts the first target.
        front, markers = self.config.front, self.config.objective_tokens
        starts = [front + len(memory) + markers - 1 for memory in memories]
        sizes = [at + len(t.target_ids) for at, t in zip(starts, tasks, strict=True)]
        picked: dict[int, Tensor] = {}
        for rows in row_groups(sizes, pass_tokens=PASS_TOKENS.get(self.device.type, 0)):
            read = self._hidden(
                [memories[r] for r in rows], [spans[r] for r in rows], [tasks[r] for r in rows]
            )
            for row, hidden_SD in zip(rows, read, strict=True):
                mask = torch.from_numpy(tasks[row].label_mask).to(self.device)
                picked[row] = hidden_SD[starts[row] : sizes[row]][mask]
        hidden_TD = torch.cat([picked[row] for row in range(len(tasks))])
        logits_TV = self.decoder.get_output_embeddings()(hidden_TD).float()
        return list(logits_TV.split([task.labels for task in tasks]))

    def _hidden(
        self,
        memories: Sequence[Tensor],
        spans: Sequence[Sequence[tuple[int, int]]],
        tasks: Sequence[DecoderTask],
    ) -> Tensor:
        """Last hidden states [R, S, D] of rows padded to the longest; see `label_logits`."""
        framed = [self.frame(m, t.objective) for m, t in zip(memories, tasks, strict=True)]
        sizes = [len(f) + len(t.input_ids) for f, t in zip(framed, tasks, strict=True)]
        ids_RS = np.zeros((len(tasks), max(sizes)), dtype=np.int64)
        positions_RS = np.zeros_like(ids_RS)
        front, markers = self.config.front, self.config.objective_tokens
        for row, (read_FD, task) in enumerate(zip(framed, tasks, strict=True)):
            ids_RS[row, len(read_FD) : sizes[row]] = task.input_ids
            positions_RS[row, : sizes[row]] = decoder_positions(
                self.config.layout, spans[row], markers + len(task.input_ids), front=front
            )
        ids = torch.from_numpy(ids_RS).to(self.device)
        tokens_RSD = self.decoder.get_input_embeddings()(ids)
        rows = [
            torch.cat([read_FD, tokens_SD[len(read_FD) :]])
            for read_FD, tokens_SD in zip(framed, tokens_RSD, strict=True)
        ]
        hidden_RSD: Tensor = self.decoder.base_model(
            inputs_embeds=torch.stack(rows),
            attention_mask=torch.ones_like(ids),
            position_ids=torch.from_numpy(positions_RS).to(self.device),
            use_cache=False,
        ).last_hidden_state
        return hidden_RSD

    def frame(self, memory_KD: Tensor, objective: Objective) -> Tensor:
        """A memory with its objective tokens, as the decoder reads it: [front + K + M, D]."""
        marker_MD = self.tokens.objective(objective).to(self.dtype)
        return torch.cat([marker_MD[: self.config.front], memory_KD, marker_MD])

    def score(
        self,
        memories: Sequence[Tensor],
        spans: Sequence[Sequence[tuple[int, int]]],
        tasks: Sequence[DecoderTask],
    ) -> list[TaskScore]:
        """Teacher-forced losses of every task; arguments as for `label_logits`.

        Returns:
            One score for each row, in order.
        """
        logits = self.label_logits(memories, spans, tasks)
        return [score_task(row, task) for row, task in zip(logits, tasks, strict=True)]

    def forward(
        self, samples: Sequence[Sample], *, kl_shares: Mapping[Objective, float] = NO_KL
    ) -> list[TaskScore]:
        """Encode every context once and score every task on its memory.

        Args:
            samples: Samples of any lengths, ratios and numbers of spans.
            kl_shares: For each objective that has one, the share of its loss (0..1) that is
                the KL divergence from the decoder that reads the full context.

        Returns:
            Scores in order of samples, then of their tasks.
        """
        plans = [
            plan_spans(len(s.context_ids), span_length=self.config.span_length, ratio=s.ratio)
            for s in samples
        ]
        encoded = self.encode_contexts(
            [
                [sample.context_ids[p.token_start : p.token_end] for p in own]
                for sample, own in zip(samples, plans, strict=True)
            ],
            [[p.slots for p in own] for own in plans],
        )
        memories, spans, tasks = [], [], []
        for sample, memory_KD, own in zip(samples, encoded, plans, strict=True):
            for task in sample.tasks:
                memories.append(memory_KD)
                spans.append([(p.length, p.slots) for p in own])
                tasks.append(task)
        logits = self.label_logits(memories, spans, tasks)
        teachers = teacher_log_probs(self.decoder, samples, kl_shares)
        return score_taught(logits, tasks, teachers, kl_shares)


def score_taught(
    logits: Sequence[Tensor],
    tasks: Sequence[DecoderTask],
    teachers: Sequence[Tensor | None],
    kl_shares: Mapping[Objective, float],
) -> list[TaskScore]:
    """Scores of tasks from their logits, in part against their teachers.

    Args:
        logits: Logits [T, V] of the scored targets of each task.
        tasks: The tasks.
        teachers: Log-probabilities [T, V] of their teachers, or None; see `teacher_log_probs`.
        kl_shares: As for `IcaeModel.forward`.
    """
    return [
        score_task(row_TV, task, teacher_TV=teacher_TV, kl_share=kl_shares.get(task.objective, 0.0))
        for row_TV, task, teacher_TV in zip(logits, tasks, teachers, strict=True)
    ]


def teacher_log_probs(
    decoder: PreTrainedModel, samples: Sequence[Sample], kl_shares: Mapping[Objective, float]
) -> list[Tensor | None]:
    """For each task, log-probabilities [T, V] of the decoder on the full context, or None.

    A continuation's teacher reads ``[context ; next tokens]``, an instruction's reads
    ``[prompt with the context ; answer]``.

    Args:
        decoder: The frozen decoder.
        samples: Samples with their tasks.
        kl_shares: Which objectives have a teacher.
    """
    taught = [
        [kl_shares.get(task.objective, 0.0) > 0 for task in sample.tasks] for sample in samples
    ]
    rows = [
        full_context_row(sample, task)
        for sample, wanted in zip(samples, taught, strict=True)
        for task, has in zip(sample.tasks, wanted, strict=True)
        if has
    ]
    logits = iter(plain_logits(decoder, rows) if rows else ())
    return [
        torch.log_softmax(next(logits), dim=-1) if has else None
        for wanted in taught
        for has in wanted
    ]


def full_context_row(sample: Sample, task: DecoderTask) -> PlainRow:
    """What a decoder without a memory reads for a task: the context itself, then the targets.

    Raises:
        ConfigError: If the task is an instruction that does not carry its full prompt.
    """
    before = sample.context_ids if task.objective == "lm" else task.full_prompt_ids
    if before is None:
        raise ConfigError(
            f"A {task.objective} task has no reading of the full context.",
            expected="a continuation, or an instruction with its full prompt",
        )
    return PlainRow(ids=np.concatenate([before, task.scored_ids]), scored=task.labels)
