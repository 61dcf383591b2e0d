"""A model of memories: the encoder that writes them and the frozen decoder that reads them.

A form of memory is one subclass in one file: what the encoder gives for spans (`encode_spans`,
`of_spans`) and how the decoder reads it before a task (`row`). Slots: `icae.model.icae`; keys and
values: `icae.model.key_values`.

Shape legend: M objective tokens, T scored targets, D hidden size, V vocabulary.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Generic, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.spans import SpanPlan
from icae.config.types import FloatArray, Objective, TokenIds
from icae.model.adapted_decoder import AdaptedDecoder
from icae.model.around import input_table
from icae.model.decoder import DecoderRow, label_logits
from icae.model.losses import TaskScore, score_task
from icae.model.memory_tokens import MemoryTokens
from icae.model.objectives import DecoderTask, Sample

M = TypeVar("M")
P = TypeVar("P")


class MemoryModel(AdaptedDecoder, Generic[P, M]):
    """Encoder and frozen decoder over one copy of the base weights.

    P is what the encoder makes of a span, M the memory of a context.

    The base model is any causal LM of transformers with rotary positions.
    """

    def __init__(self, decoder: PreTrainedModel, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__(decoder, config, seed=seed)
        embedding_VD = input_table(decoder)
        self.tokens = MemoryTokens(config, embedding_VD, torch.Generator().manual_seed(seed))
        self.tokens.to(embedding_VD.device)

    def encode(self, contexts: Sequence[TokenIds], ratios: Sequence[float]) -> list[M]:
        """The memory of each context, of any length, with gradient to the trained weights."""
        plans = [
            self.config.plan(len(ids), ratio) for ids, ratio in zip(contexts, ratios, strict=True)
        ]
        spans = [
            [ids[p.token_start : p.token_end] for p in own]
            for ids, own in zip(contexts, plans, strict=True)
        ]
        return self.encode_planned(spans, plans)

    def encode_planned(
        self, contexts: Sequence[Sequence[TokenIds]], plans: Sequence[Sequence[SpanPlan]]
    ) -> list[M]:
        """The memory of each context from the token ids of its planned spans, in order."""
        made = self.encode_texts(contexts, [[p.slots for p in own] for own in plans])
        return [self.of_spans(parts, own) for parts, own in zip(made, plans, strict=True)]

    def encode_texts(
        self, texts: Sequence[Sequence[TokenIds]], slots: Sequence[Sequence[int]]
    ) -> list[list[P]]:
        """What the encoder makes of the spans of each text, with so many slots.

        All are read in one pass, and do not see each other.
        """
        made = iter(self.encode_spans([*chain(*texts)], [*chain(*slots)]))
        return [[next(made) for _ in own] for own in texts]

    @abstractmethod
    def encode_spans(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> list[P]:
        """What the encoder makes of each span, with so many slots."""

    @abstractmethod
    def of_spans(self, parts: Sequence[P], plans: Sequence[SpanPlan]) -> M:
        """The memory of a context of what was made of its spans."""

    @abstractmethod
    def row(self, memory: M, task: DecoderTask) -> DecoderRow:
        """What the decoder reads for a task behind a memory."""

    def lead_vectors(self) -> FloatArray | None:
        """Learned slots before a memory that is asked, [P, Y, 2, H, W], float32; None without."""
        return None

    def closing_vectors(self) -> FloatArray | None:
        """Objective vectors [M, D] that stand behind a prompt, too, float32; None without."""
        if self.config.asking.closing == "nothing":
            return None
        behind_MD = self.tokens.objective("ft")[-self.config.objective_tokens :]
        vectors: FloatArray = behind_MD.detach().float().cpu().numpy().copy()
        return vectors

    def markers(self, objective: Objective) -> Tensor:
        """Objective tokens as the decoder reads them; see `MemoryTokens.objective`."""
        return self.tokens.objective(objective).to(self.dtype)

    def label_logits(self, memories: Sequence[M], tasks: Sequence[DecoderTask]) -> list[Tensor]:
        """Teacher-forced pass of the frozen decoder.

        Returns:
            Logits [T, V] of each row's scored targets, float32.
        """
        rows = [self.row(memory, task) for memory, task in zip(memories, tasks, strict=True)]
        return label_logits(self.decoder, rows)

    def score(self, memories: Sequence[M], tasks: Sequence[DecoderTask]) -> list[TaskScore]:
        """Teacher-forced losses of every task; arguments as for `label_logits`."""
        logits = self.label_logits(memories, tasks)
        return [score_task(row_TV, task) for row_TV, task in zip(logits, tasks, strict=True)]

    def forward(self, samples: Sequence[Sample]) -> list[TaskScore]:
        """Encode every context once and score every task on its memory.

        Returns:
            Scores in order of samples, then of their tasks.
        """
        encoded = self.encode([s.context_ids for s in samples], [s.ratio for s in samples])
        memories = [memory for s, memory in zip(samples, encoded, strict=True) for _ in s.tasks]
        return self.score(memories, [task for sample in samples for task in sample.tasks])
