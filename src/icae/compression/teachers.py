"""What the frozen decoder itself says after reading a context: the teachers of refinement.

The decoder reads the context as plain tokens and writes a continuation and answers to a
few general questions. Slots that make it give the same probabilities to the same words
are as good as the text for more than writing it back.

Shapes: T scored targets, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from icae.compression.refinement import Teacher
from icae.config.types import TokenIds
from icae.model import PlainRow, plain_logits, render_full_prompt, render_prompt
from icae.model.objectives import DecoderTask, continuation, instruction


@dataclass(frozen=True, kw_only=True)
class TeacherWriter:
    """Writes the teachers of contexts.

    Attributes:
        decoder: The frozen decoder, which reads and writes.
        tokenizer: The base model's tokenizer.
        continuations: Sampled continuations of each context.
        prompts: General questions that any text can answer; each costs one answer.
        length: Tokens of each text.
        seed: Seed of the sampling.
    """

    decoder: PreTrainedModel
    tokenizer: Any
    continuations: int = 1
    prompts: Sequence[str] = ()
    length: int = 32
    seed: int = 0

    def write(self, contexts: Sequence[TokenIds]) -> list[tuple[Teacher, ...]]:
        """Let the decoder write after each context and take down how sure it was.

        What is written after a context does not depend on the others.

        Args:
            contexts: Token ids of each context, int64 [L].
        """
        orders = [order for ids in contexts for order in self._orders(ids)]
        if not orders:
            return [() for _ in contexts]
        written = self._generate(orders)
        rows = [
            PlainRow(ids=np.concatenate([order.read_ids, ids]), scored=len(ids))
            for order, ids in zip(orders, written, strict=True)
        ]
        teachers = [
            Teacher(task=order.task(ids), log_probs_TV=torch.log_softmax(logits_TV, dim=-1).half())
            for order, ids, logits_TV in zip(
                orders, written, plain_logits(self.decoder, rows), strict=True
            )
        ]
        each = len(orders) // len(contexts)
        return [tuple(teachers[i * each : (i + 1) * each]) for i in range(len(contexts))]

    def _orders(self, context_ids: TokenIds) -> list[_Order]:
        """Everything that is to be written after one context."""
        sampled = [
            _Order(read_ids=context_ids, seed=self.seed + i) for i in range(self.continuations)
        ]
        text = self.tokenizer.decode(context_ids.tolist())
        answered = [
            _Order(
                read_ids=render_full_prompt(self.tokenizer, text, prompt),
                prompt_ids=render_prompt(self.tokenizer, prompt),
            )
            for prompt in self.prompts
        ]
        return [*sampled, *answered]

    def _generate(self, orders: Sequence[_Order]) -> list[TokenIds]:
        """What the decoder writes for each; those that read equally many tokens at once."""
        groups: dict[int, list[int]] = defaultdict(list)
        for i, order in enumerate(orders):
            groups[len(order.read_ids)].append(i)
        found: dict[int, TokenIds] = {}
        for members in groups.values():
            for i, ids in zip(members, self._batch([orders[i] for i in members]), strict=True):
                found[i] = ids
        return [found[i] for i in range(len(orders))]

    @torch.no_grad()
    def _batch(self, orders: Sequence[_Order]) -> list[TokenIds]:
        """Up to `length` tokens for each of some orders of equal length."""
        prompt_RS = torch.from_numpy(np.stack([order.read_ids for order in orders]))
        prompt_RS = prompt_RS.to(self.decoder.device)
        stop = self.tokenizer.eos_token_id
        written_RS = self.decoder.generate(
            input_ids=prompt_RS,
            attention_mask=torch.ones_like(prompt_RS),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=self.length,
            pad_token_id=stop,
            logits_processor=LogitsProcessorList([_Sampling(orders)]),
        )
        size = prompt_RS.shape[1]
        return [_up_to(row[size:].cpu().numpy(), stop) for row in written_RS]


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What the decoder reads before it writes one text.

    Attributes:
        read_ids: The context, or a prompt that holds it.
        prompt_ids: The prompt alone, where there is one.
        seed: Seed of the sampling, or None to write the most likely tokens.
    """

    read_ids: TokenIds
    prompt_ids: TokenIds | None = None
    seed: int | None = None

    def task(self, written_ids: TokenIds) -> DecoderTask:
        """The same text as a task behind the slots."""
        if self.prompt_ids is None:
            return continuation(written_ids)
        return instruction(self.prompt_ids, written_ids)


class _Sampling(LogitsProcessor):  # type: ignore[misc]
    """Makes greedy decoding sample, each row by its own seed, whatever stands beside it.

    The largest of logits with Gumbel noise is a sample of their distribution.
    """

    def __init__(self, orders: Sequence[_Order]) -> None:
        self.generators = [
            None if order.seed is None else torch.Generator().manual_seed(order.seed)
            for order in orders
        ]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [R, V] with the noise of each row."""
        noisy = []
        for row_V, generator in zip(scores, self.generators, strict=True):
            if generator is None:
                noisy.append(row_V)
                continue
            uniform_V = torch.rand(row_V.shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
            noisy.append(row_V - torch.log(-torch.log(uniform_V)).to(row_V))
        return torch.stack(noisy)


def _up_to(ids: TokenIds, stop: int | None) -> TokenIds:
    """The tokens before and with the first one that ends a turn."""
    ends = [] if stop is None else np.flatnonzero(ids == stop).tolist()
    return ids[: ends[0] + 1] if len(ends) else ids
