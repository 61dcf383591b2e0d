"""The decoder behind memories and behind raw tokens: encoding, teacher forcing, writing back.

Shape legend: K slots, D hidden size, T scored tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.types import FloatArray, Objective, TokenIds
from icae.decode.prefix import Prefix
from icae.decode.torch import TorchRuntime
from icae.memory import Span
from icae.memory.payload import ReadablePayload
from icae.model.decoder import DecoderRow, plain_logits
from icae.model.losses import TaskScore, score_task
from icae.model.objectives import DecoderTask, continuation

DECODING_ROWS = 16
"""Rows of a batch of greedy decoding for each row of a batch that is read: reading is bounded
by the vocabulary logits of every token, a decoding step by its far smaller key-value cache."""


@dataclass(frozen=True, kw_only=True)
class ContextMemory:
    """What the decoder reads in place of one context.

    Attributes:
        parts: What it gets in place of each span, or of several of one form, in order.
        spans: (context tokens, decoder positions) of each span, in order.
    """

    parts: tuple[ReadablePayload, ...]
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of_spans(cls, spans: Sequence[Span]) -> ContextMemory:
        """Spans of one context."""
        return cls(
            parts=tuple(s.payload for s in spans if isinstance(s.payload, ReadablePayload)),
            spans=tuple((span.tokens, span.positions) for span in spans),
        )

    @property
    def positions(self) -> int:
        """Decoder positions that it takes."""
        return sum(part.positions for part in self.parts)

    @property
    def numbers(self) -> FloatArray:
        """What all its slots are made of, [K, ...], for experiments that change single ones."""
        return np.concatenate([part.numbers for part in self.parts])

    def changed(self, slot: int, numbers: FloatArray) -> ContextMemory:
        """The same with other numbers in place of one slot's."""
        parts, at = list(self.parts), slot
        for i, part in enumerate(parts):
            if 0 <= at < part.positions:
                own = part.numbers.copy()
                own[at] = numbers
                parts[i] = part.changed(own)
            at -= part.positions
        return replace(self, parts=tuple(parts))

    def prefix(self, runtime: TorchRuntime, objective: Objective) -> Prefix:
        """What the decoder reads for an objective."""
        own = Prefix(parts=self.parts, spans=self.spans, objective=objective)
        return own.behind(runtime.lead(objective))


NO_MEMORY = ContextMemory(parts=(), spans=())
"""A memory without slots: behind it stands only the objective token."""


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """How the decoder did on each scored token of one task.

    Attributes:
        losses_T: Loss (nats) of each token, float64.
        correct_T: Whether the most likely token was the target.
    """

    losses_T: NDArray[np.float64]
    correct_T: NDArray[np.bool_]

    @classmethod
    def of(cls, score: TaskScore) -> TokenScores:
        """The figures of a score, off the device."""
        return cls(
            losses_T=-score.log_probs_T.double().cpu().numpy(),
            correct_T=score.correct_T.cpu().numpy(),
        )


def slot_budget(tokens: int, config: ModelConfig, ratio: float) -> int:
    """Slots of the memory of a context at a ratio."""
    return sum(plan.slots for plan in config.plan(tokens, ratio))


def peer_budget(tokens: int, config: ModelConfig, ratio: float) -> int:
    """Decoder positions that its peers may take: as many as the memory, its lead included."""
    return slot_budget(tokens, config, ratio) + config.lead_slots


def encode_contexts(
    runtime: TorchRuntime, contexts: Sequence[TokenIds], *, ratio: float, bound: int | None = None
) -> list[ContextMemory]:
    """Compress contexts, in forward passes of bounded size.

    Args:
        runtime: The encoder.
        contexts: Token ids of each context.
        ratio: Context tokens per slot.
        bound: Most context tokens of one pass; None: as many as when they are scored, too.
    """
    plans = [runtime.config.plan(len(ids), ratio) for ids in contexts]
    spans = [(ids, plan) for ids, own in zip(contexts, plans, strict=True) for plan in own]
    places = [(plan.token_start, plan.token_end) for _, plan in spans]
    payloads: dict[int, ReadablePayload] = {}
    for part in runtime.passes(places, bound=bound or runtime.span_tokens):
        pieces = [spans[i][0][slice(*places[i])] for i in part]
        encoded = runtime.encode(pieces, [spans[i][1].slots for i in part])
        payloads.update(zip(part, encoded, strict=True))
    made = (payloads[i] for i in range(len(spans)))
    return [
        ContextMemory(
            parts=tuple(itertools.islice(made, len(own))),
            spans=tuple((p.length, p.slots) for p in own),
        )
        for own in plans
    ]


def score_tasks(
    runtime: TorchRuntime, memories: Sequence[ContextMemory], tasks: Sequence[DecoderTask]
) -> list[TokenScores]:
    """Teacher forcing behind ``[memory ; objective]``, in forward passes of bounded size."""
    scores: list[TaskScore] = []
    for part in runtime.batches([len(task.target_ids) for task in tasks]):
        pairs = zip(memories[part], tasks[part], strict=True)
        prefixes = [memory.prefix(runtime, task.tokens) for memory, task in pairs]
        scores += runtime.score(prefixes, tasks[part])
    return [TokenScores.of(score) for score in scores]


def write_back(runtime: TorchRuntime, memories: Sequence[ContextMemory]) -> list[tuple[int, ...]]:
    """Greedy reconstruction of whole contexts, each to its own length."""
    prefixes = [memory.prefix(runtime, "ae") for memory in memories]
    lengths = [sum(tokens for tokens, _ in m.spans) for m in memories]
    written: list[tuple[int, ...]] = []
    for part in runtime.batches([-(-length // DECODING_ROWS) for length in lengths]):
        written += runtime.write_back(prefixes[part])
    return written


@torch.inference_mode()
def plain_scores(
    runtime: TorchRuntime, tasks: Sequence[DecoderTask], *, decoder: PreTrainedModel | None = None
) -> list[TokenScores]:
    """Teacher forcing without memory or objective token, in passes of bounded size.

    Args:
        runtime: Says how much is read in one pass.
        tasks: What to read and to score.
        decoder: Who reads; None: the frozen decoder of the runtime.
    """
    scores: list[TaskScore] = []
    for part in runtime.batches([len(task.target_ids) for task in tasks]):
        rows = [DecoderRow.plain(task.target_ids, scored=task.labels) for task in tasks[part]]
        made = plain_logits(decoder or runtime.model.decoder, rows)
        scores += map(score_task, made, tasks[part])
    return [TokenScores.of(score) for score in scores]


def led_continuation(ids: TokenIds, *, context: Sequence[int] | TokenIds = ()) -> DecoderTask:
    """The continuation of a context, whose first token is read but not scored.

    Args:
        ids: The token after the context (without a context there is nothing to predict it from),
            then the tokens to score.
        context: Raw tokens that are read before them.
    """
    read = np.concatenate([np.asarray(context, dtype=np.int64), ids])
    return replace(continuation(read), unscored=len(context) + 1)


def token_losses(
    runtime: TorchRuntime, contexts: Sequence[TokenIds], following: Sequence[TokenIds]
) -> NDArray[np.float64]:
    """Mean loss (nats) of what follows each context, behind its raw tokens; float64 [contexts]."""
    pairs = zip(contexts, following, strict=True)
    return mean_losses(
        plain_scores(runtime, [led_continuation(ids, context=context) for context, ids in pairs])
    )


def slot_losses(
    runtime: TorchRuntime, memories: Sequence[ContextMemory], following: Sequence[TokenIds]
) -> NDArray[np.float64]:
    """The same behind slots and [LM]."""
    return mean_losses(score_tasks(runtime, memories, list(map(led_continuation, following))))


def mean_losses(scores: Sequence[TokenScores]) -> NDArray[np.float64]:
    """Mean token loss (nats) of each task."""
    return np.array([score.losses_T.mean() for score in scores])
