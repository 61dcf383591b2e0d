"""The decoder behind memories: encoding contexts, teacher forcing, writing back.

Shape legend: K slots, D hidden size, T scored tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from icae.config.spans import plan_spans
from icae.config.types import FloatArray, TokenIds
from icae.decode.prefix import Prefix
from icae.decode.torch import TorchRuntime
from icae.memory import Span
from icae.model import Slots
from icae.model.objectives import DecoderTask

Tick = Callable[[int], None]
"""Called with the tokens that went through the model since the last call."""

STEP_COST = 32
"""Tokens read in one pass that take about as long as one step of greedy decoding."""


@dataclass(frozen=True, kw_only=True)
class ContextMemory:
    """What the decoder reads in place of one context.

    Attributes:
        slots_KD: Slots, or embeddings of verbatim tokens, [K, D] of all its spans, float32.
        spans: (context tokens, decoder positions) of each span, in order.
    """

    slots_KD: FloatArray
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """How the decoder did on each scored token of one task.

    Attributes:
        losses_T: Loss (nats) of each token.
        correct_T: Whether the most likely token was the target.
    """

    losses_T: NDArray[np.float64]
    correct_T: NDArray[np.bool_]


class WideRuntime(TorchRuntime):
    """The torch runtime with more rows to a pass, for greedy decoding.

    Reading is bounded by the vocabulary logits of every token; a decoding step has only
    one token a row, so that its bound is the key-value cache, which is far smaller.
    """

    WIDTH = 16

    def batches(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Consecutive slices of WIDTH times as many tokens as are read at once."""
        return super().batches([-(-length // self.WIDTH) for length in lengths])


def encode_contexts(
    runtime: TorchRuntime,
    contexts: Sequence[TokenIds],
    *,
    ratio: float,
    tick: Tick,
) -> list[ContextMemory]:
    """Compress contexts, each cut into spans as everywhere else.

    Args:
        runtime: The encoder.
        contexts: Token ids of each context.
        ratio: Context tokens per slot.
        tick: Called with the tokens of each forward pass.

    Returns:
        The memory of each context.
    """
    span_length = runtime.model.config.span_length
    plans = [plan_spans(len(ids), span_length=span_length, ratio=ratio) for ids in contexts]
    pieces = [
        ids[p.token_start : p.token_end]
        for ids, spans in zip(contexts, plans, strict=True)
        for p in spans
    ]
    counts = [p.slots for spans in plans for p in spans]
    slots: list[FloatArray] = []
    for part in runtime.batches([len(piece) for piece in pieces]):
        slots += runtime.encode(pieces[part], counts[part])
        tick(sum(len(piece) for piece in pieces[part]) + sum(counts[part]))
    made = iter(slots)
    return [
        ContextMemory(
            slots_KD=np.concatenate([next(made) for _ in spans]),
            spans=tuple((p.length, p.slots) for p in spans),
        )
        for spans in plans
    ]


def span_memory(runtime: TorchRuntime, spans: Sequence[Span]) -> ContextMemory:
    """Spans of one context as decoder inputs; verbatim tokens as their embeddings.

    Args:
        runtime: Holds the embeddings.
        spans: Slots or verbatim tokens, in order.
    """
    inputs = [
        runtime.read_tokens(span.verbatim_ids).float().cpu().numpy()
        if span.kind == "tokens"
        else span.slots_KD
        for span in spans
    ]
    return ContextMemory(
        slots_KD=np.concatenate(inputs),
        spans=tuple((span.tokens, span.positions) for span in spans),
    )


def no_memory(runtime: TorchRuntime) -> ContextMemory:
    """A memory without slots: behind it stands only the objective token."""
    width = runtime.model.decoder.get_input_embeddings().weight.shape[1]
    return ContextMemory(slots_KD=np.zeros((0, width), np.float32), spans=())


@torch.inference_mode()
def score_tasks(
    runtime: TorchRuntime,
    memories: Sequence[ContextMemory],
    tasks: Sequence[DecoderTask],
    *,
    tick: Tick,
) -> list[TokenScores]:
    """Teacher forcing behind ``[slots ; objective]``, in forward passes of bounded size.

    Args:
        runtime: Holds the decoder.
        memories: The memory of each row.
        tasks: The task of each row; it names the objective token.
        tick: Called with the tokens of each forward pass.
    """
    model = runtime.model
    sizes = [
        len(memory.slots_KD) + len(task.target_ids)
        for memory, task in zip(memories, tasks, strict=True)
    ]
    result = []
    for part in runtime.batches([len(task.target_ids) for task in tasks]):
        slots = [
            Slots(
                slots_KD=torch.from_numpy(np.ascontiguousarray(m.slots_KD)).to(
                    model.device, model.dtype
                ),
                spans=m.spans,
            )
            for m in memories[part]
        ]
        scores = model.score(slots, tasks[part])
        result += [
            TokenScores(
                losses_T=-score.log_probs_T.double().cpu().numpy(),
                correct_T=score.correct_T.cpu().numpy(),
            )
            for score in scores
        ]
        tick(sum(sizes[part]))
    return result


def write_back(
    runtime: TorchRuntime, memories: Sequence[ContextMemory], *, tick: Tick
) -> list[tuple[int, ...]]:
    """Greedy reconstruction of whole contexts, each to its own length.

    Args:
        runtime: Holds the decoder.
        memories: The memory of each context, of one span or several.
        tick: Called after each batch, with the reading that would have taken as long.
    """
    wide = WideRuntime(runtime.model)
    prefixes = [Prefix.of_slots(m.slots_KD, m.spans, "ae") for m in memories]
    lengths = [sum(tokens for tokens, _ in m.spans) for m in memories]
    written: list[tuple[int, ...]] = []
    for part in wide.batches(lengths):
        written += wide.write_back(prefixes[part])
        tick(STEP_COST * max(lengths[part]))
    return written
