"""Lessons: what the decoder says of a text that it reads as a finer memory, for one to learn.

Prompts about the text are answered: the user's questions, a few general ones, questions that the
decoder itself asks about each stretch of the text, its continuation; and recall, whose answers are
the text's own.

Source: Eyuboglu et al. 2025 (Cartridges, arXiv:2506.06266), self-study.

Shapes: T scored targets, C candidates kept of each, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icae.config.types import Objective, TokenIds
from icae.decode.prefix import Generated, Prefix, Request
from icae.decode.torch import TorchRuntime
from icae.model.objectives import DecoderTask, continuation, draw_probes, instruction
from icae.model.prompts import render_prompt, tokenize

GENERAL = (
    "What is this text about?",
    "Summarise this text in one sentence.",
    "Which people, places and organisations does this text name?",
    "Which numbers and dates does this text give, and of what?",
)
"""Questions that any text can answer."""

ASKING = "Write one short question that this passage answers.\n\n{passage}"
"""How the decoder is asked for questions of its own."""

BEGUN = ("Who", "What", "When", "Where", "Which", "How many")
"""How its questions begin: left to itself, a small one talks about the passage instead."""

STRETCH = 40
"""Tokens of each passage that the decoder asks about; the next one begins in its middle."""

PROBED = 16
"""Tokens of the text for each recall."""

_SENTENCE_END = re.compile(r"[.!?\n]")

CANDIDATES = 64
"""Most likely tokens that are kept of each target, as many as make up most of the probability."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """A prompt, the answer to it, and how likely each token of that was to who gave it.

    Attributes:
        task: What the decoder must do behind the memory.
        ids_TC: The most likely tokens at each target, int64.
        probs_TC: Their probabilities, float32, which sum to 1.
    """

    task: DecoderTask
    ids_TC: Tensor
    probs_TC: Tensor

    def loss(self, logits_TV: Tensor) -> Tensor:
        """KL(teacher || memory) over the kept tokens, mean over targets, nats."""
        log_probs_TC = logits_TV.log_softmax(dim=1).gather(1, self.ids_TC)
        known_TC = self.probs_TC.clamp(min=1e-9).log()
        return (self.probs_TC * (known_TC - log_probs_TC)).sum(dim=1).mean()

    @classmethod
    def of_text(cls, task: DecoderTask, device: torch.device) -> Lesson:
        """A lesson whose answer is certain: the text itself."""
        ids_T1 = torch.from_numpy(task.scored_ids)[:, None].to(device)
        return cls(task=task, ids_TC=ids_T1, probs_TC=torch.ones_like(ids_T1, dtype=torch.float32))

    @classmethod
    def of_logits(cls, task: DecoderTask, logits_TV: Tensor) -> Lesson:
        """A lesson from what the decoder made of every target."""
        probs_TC, ids_TC = logits_TV.softmax(dim=1).topk(min(CANDIDATES, logits_TV.shape[1]))
        return cls(task=task, ids_TC=ids_TC, probs_TC=probs_TC / probs_TC.sum(dim=1, keepdim=True))


@dataclass(frozen=True, kw_only=True)
class LessonWriter:
    """Writes lessons about stretches of a document that fit the decoder's window.

    Attributes:
        runtime: The decoder, which reads and answers.
        tokenizer: The base model's tokenizer.
        stop_ids: Tokens that end an answer.
        length: Most tokens of an answer.
    """

    runtime: TorchRuntime
    tokenizer: Any
    stop_ids: Sequence[int]
    length: int = 32

    def write(
        self, ids: TokenIds, taught: Prefix, questions: Sequence[str], seed: int = 0
    ) -> list[Lesson]:
        """All lessons about a text.

        Args:
            ids: Token ids of the text, int64 [L].
            taught: What stands for the text where prompts about it are answered.
            questions: Further questions about it.
            seed: Decides which stretches are asked for.
        """
        asked = dict.fromkeys([*questions, *GENERAL, *self.own_questions(ids)])
        said = [*self.answered(taught, list(asked)), *self._continued(taught)]
        probes = draw_probes(np.random.default_rng(seed), ids, max(1, len(ids) // PROBED))
        return [*said, *(Lesson.of_text(task, self.runtime.model.device) for task in probes)]

    def own_questions(self, ids: TokenIds) -> list[str]:
        """What the decoder asks about each stretch of a text."""
        stretches = [ids[at : at + STRETCH] for at in range(0, len(ids), STRETCH // 2)]
        passages = [str(self.tokenizer.decode(own.tolist())).strip() for own in stretches]
        prompts = [self._prompt(ASKING.format(passage=passage)) for passage in passages]
        begun = [(ids, word) for ids in prompts for word in BEGUN]
        made = self._written(
            None, [np.concatenate([ids, tokenize(self.tokenizer, word)]) for ids, word in begun]
        )
        found = []
        for (_, word), own in zip(begun, made, strict=True):
            text = word + str(self.tokenizer.decode(list(own.token_ids)))
            end = _SENTENCE_END.search(text)
            if end is not None and end[0] == "?":
                found.append(text[: end.end()])
        return found

    def answered(self, taught: Prefix, questions: Sequence[str]) -> Iterator[Lesson]:
        """Questions about a text with the answers that the decoder gives when it reads it."""
        prefix, tasks = self._reading(taught, "ft"), []
        prompts = [self._prompt(question) for question in questions]
        for prompt_ids, answer in zip(prompts, self._written(prefix, prompts), strict=True):
            end = list(self.stop_ids[:1]) if answer.stopped else []
            answer_ids = np.array([*answer.token_ids, *end], dtype=np.int64)
            if len(answer_ids):
                tasks.append(instruction(prompt_ids, answer_ids))
        return self._lessons(prefix, tasks)

    def _prompt(self, question: str) -> TokenIds:
        return render_prompt(self.tokenizer, question, asking=self.runtime.config.asking)

    def _written(self, prefix: Prefix | None, prompts: Sequence[TokenIds]) -> list[Generated]:
        """What the decoder answers to some prompts, behind a memory or nothing."""
        requests = [Request(prefix=prefix, prompt_ids=ids) for ids in prompts]
        return self.runtime.generate_many(
            requests, max_new_tokens=self.length, stop_ids=self.stop_ids
        )

    def _continued(self, taught: Prefix) -> Iterator[Lesson]:
        """What the decoder writes behind a text, where it is asked to with objective tokens."""
        if not self.runtime.config.behind("lm"):
            return iter(())
        prefix = self._reading(taught, "lm")
        nothing = Request(prefix=prefix, prompt_ids=np.zeros(0, dtype=np.int64))
        (made,) = self.runtime.generate_many([nothing], max_new_tokens=self.length, stop_ids=())
        return self._lessons(prefix, [continuation(np.array(made.token_ids, dtype=np.int64))])

    def _lessons(self, prefix: Prefix, tasks: Sequence[DecoderTask]) -> Iterator[Lesson]:
        for task, logits_TV in zip(tasks, self.runtime.logits_behind(prefix, tasks), strict=True):
            # Out of inference mode, in which nothing can be learned from.
            yield Lesson.of_logits(task, logits_TV.clone())

    def _reading(self, taught: Prefix, objective: Objective) -> Prefix:
        """What is read for an objective."""
        return replace(taught, objective=objective).behind(self.runtime.lead(objective))
