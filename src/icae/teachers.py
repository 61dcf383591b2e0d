"""What the frozen decoder itself says after reading a context: the teachers of refinement.

The decoder reads the context as plain tokens and writes a continuation and answers to a
few general questions. Slots that make it give the same probabilities to the same words
are as good as the text for more than writing it back.

Shapes: T scored targets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from icae.model import IcaeModel, PlainRow, plain_logits, render_full_prompt, render_prompt
from icae.objectives import continuation, instruction
from icae.refinement import Teacher
from icae.types import TokenIds


@dataclass(frozen=True, kw_only=True)
class TeacherWriter:
    """Writes the teachers of a context.

    Attributes:
        model: Its frozen decoder reads and writes.
        tokenizer: The base model's tokenizer.
        continuations: Sampled continuations of each context.
        prompts: General questions that any text can answer; each costs one answer.
        length: Tokens of each text.
        seed: Seed of the sampling.
    """

    model: IcaeModel
    tokenizer: Any
    continuations: int = 1
    prompts: Sequence[str] = ()
    length: int = 32
    seed: int = 0

    def later(self, context_ids: TokenIds) -> Callable[[], tuple[Teacher, ...]]:
        """The teachers of a context, written when they are asked for.

        Args:
            context_ids: The context's token ids, int64 [L].
        """
        return lambda: self.write(context_ids)

    def write(self, context_ids: TokenIds) -> tuple[Teacher, ...]:
        """Let the decoder write after the context and take down how sure it was.

        Args:
            context_ids: The context's token ids, int64 [L].
        """
        rows, tasks = [], []
        text = self.tokenizer.decode(context_ids.tolist())
        for i in range(self.continuations):
            written = self._generate(context_ids, seed=self.seed + i)
            rows.append(PlainRow(ids=np.concatenate([context_ids, written]), scored=len(written)))
            tasks.append(continuation(written))
        for prompt in self.prompts:
            full_ids = render_full_prompt(self.tokenizer, text, prompt)
            written = self._generate(full_ids, seed=None)
            rows.append(PlainRow(ids=np.concatenate([full_ids, written]), scored=len(written)))
            tasks.append(instruction(render_prompt(self.tokenizer, prompt), written))
        if not rows:
            return ()
        logits = plain_logits(self.model.decoder, rows)
        return tuple(
            Teacher(task=task, log_probs_TV=torch.log_softmax(row_TV, dim=-1).half())
            for task, row_TV in zip(tasks, logits, strict=True)
        )

    @torch.no_grad()
    def _generate(self, ids: TokenIds, *, seed: int | None) -> TokenIds:
        """Up to `length` tokens that follow: sampled with a seed, or greedy without."""
        prompt = torch.from_numpy(ids)[None].to(self.model.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            written = self.model.decoder.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=seed is not None,
                temperature=1.0 if seed is not None else None,
                top_p=None,
                top_k=None,
                max_new_tokens=self.length,
                pad_token_id=self.tokenizer.eos_token_id,
            )
        found: TokenIds = written[0, len(ids) :].cpu().numpy()
        return found
