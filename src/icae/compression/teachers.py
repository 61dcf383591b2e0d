"""What the frozen decoder itself says after reading a context: the teachers of refinement.

The decoder reads the context as plain tokens and writes on. Slots that make it give the same
probabilities to the same words are as good as the text for more than writing it back.

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
from icae.model.decoder import DecoderRow, plain_logits
from icae.model.objectives import continuation


@dataclass(frozen=True, kw_only=True)
class TeacherWriter:
    """Writes the teachers of contexts.

    Attributes:
        decoder: The frozen decoder, which reads and writes.
        tokenizer: The base model's tokenizer.
        length: Tokens of each text.
        seed: Seed of the sampling.
    """

    decoder: PreTrainedModel
    tokenizer: Any
    length: int = 32
    seed: int = 0

    def write(self, contexts: Sequence[TokenIds]) -> list[Teacher]:
        """Let the decoder write on after each context, int64 [L], and take down how sure it was.

        What is written after a context does not depend on the others.
        """
        if not contexts:
            return []
        groups: dict[int, list[int]] = defaultdict(list)
        for i, ids in enumerate(contexts):
            groups[len(ids)].append(i)
        written: dict[int, TokenIds] = {}
        for members in groups.values():
            texts = self._written([contexts[i] for i in members])
            written.update(zip(members, texts, strict=True))
        rows = [
            DecoderRow.plain(np.concatenate([ids, written[i]]), scored=len(written[i]))
            for i, ids in enumerate(contexts)
        ]
        return [
            Teacher(
                task=continuation(written[i]),
                log_probs_TV=torch.log_softmax(logits_TV, dim=-1).half(),
            )
            for i, logits_TV in enumerate(plain_logits(self.decoder, rows))
        ]

    @torch.no_grad()
    def _written(self, contexts: Sequence[TokenIds]) -> list[TokenIds]:
        """Up to `length` tokens after each of some contexts of equal length."""
        prompt_RS = torch.from_numpy(np.stack(contexts)).to(self.decoder.device)
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
            logits_processor=LogitsProcessorList([_Sampling(self.seed)]),
        )
        size = prompt_RS.shape[1]
        return [_up_to(row[size:].cpu().numpy(), stop) for row in written_RS]


class _Sampling(LogitsProcessor):  # type: ignore[misc]
    """Makes greedy decoding sample, all rows with the same noise: none depends on its neighbours.

    The largest of logits with Gumbel noise is a sample of their distribution.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores_RV: Tensor) -> Tensor:
        """Logits [R, V] with noise."""
        uniform_V = torch.rand(scores_RV.shape[1:], generator=self.generator)
        return scores_RV - torch.log(-torch.log(uniform_V.clamp_(1e-9, 1 - 1e-7))).to(scores_RV)


def _up_to(ids: TokenIds, stop: int | None) -> TokenIds:
    """The tokens before and with the first one that ends a turn."""
    ends = [] if stop is None else np.flatnonzero(ids == stop).tolist()
    return ids[: ends[0] + 1] if len(ends) else ids
