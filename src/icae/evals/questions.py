"""Drawing questions from triplet files, the same for everything that answers them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icae.config.types import TokenIds
from icae.data.corpus import list_corpus
from icae.data.triplets import Triplet, read_triplets
from icae.errors import InputError
from icae.evals.text_metrics import normalised
from icae.model.prompts import render_answer, render_prompt, tokenize

log = logging.getLogger(__name__)

CHOICES = ("yes", "no", "maybe")
"""Answers of a data set whose answers are chosen from a few."""

SPARE = 32
"""Positions kept free for objective tokens and what joins a context to its prompt."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about one context.

    Attributes:
        context: The text.
        context_ids: Its token ids.
        prompt: What is asked.
        answers: Reference answers, at least one.
        group: Number of the context in its data set: questions about one text share it.
    """

    context: str
    context_ids: TokenIds
    prompt: str
    answers: tuple[str, ...]
    group: int


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """The questions drawn from one file.

    Attributes:
        name: Name of the file, without its endings.
        questions: The questions, those with short contexts first.
        in_file: Questions in the file.
        too_long: Questions of the file that were left out of the draw, since context, prompt
            and answer do not fit the decoder's window or a cap.
        choices: The answers to choose from, as they are written, where all answers of the
            file are a plain yes, no or maybe; else none.
    """

    name: str
    questions: tuple[Question, ...]
    in_file: int
    too_long: int
    choices: tuple[str, ...]

    @property
    def groups(self) -> list[int]:
        """The context of each question."""
        return [question.group for question in self.questions]

    @property
    def commonest_choice(self) -> float | None:
        """Share of the questions with the most frequent answer, where there are choices."""
        if not self.choices:
            return None
        counts = Counter(normalised(question.answers[0]) for question in self.questions)
        return max(counts.values()) / len(self.questions)

    @property
    def record(self) -> dict[str, Any]:
        """What a result says about the questions."""
        return {
            "dataset": self.name,
            "questions_in_file": self.in_file,
            "too_long": self.too_long,
            "questions": len(self.questions),
            "contexts": len(set(self.groups)),
            "choices": list(self.choices),
            "commonest_choice": self.commonest_choice,
        }

    @property
    def note(self) -> str:
        """Which questions were asked, for people."""
        text = (
            f"{self.name}: {len(self.questions)} questions about {len(set(self.groups))} "
            f"contexts, of {self.in_file} in the file; {self.too_long} of the file were too long "
            "for the decoder or --max-context and were left out for every reader."
        )
        if self.commonest_choice is None:
            return text
        return (
            f"{text} Choice accuracy: the likelier of {', '.join(self.choices)}; always saying "
            f"the commonest gives {self.commonest_choice:.3f}."
        )


@dataclass(frozen=True, kw_only=True)
class QuestionReader:
    """Draws questions that fit the decoder from triplet files.

    Those that do not fit are left out for every reader, so that all answer the same.

    Attributes:
        tokenizer: The base model's tokenizer.
        window: Decoder positions in all.
        answer: Most tokens of an answer.
        context: Longest context in tokens, or None for what the window holds.
        count: Questions drawn from each file; None takes all.
        seed: Seed of the draw.
    """

    tokenizer: Any
    window: int
    answer: int
    context: int | None
    count: int | None
    seed: int

    def read(self, paths: Sequence[Path]) -> dict[str, QuestionSet]:
        """The questions of each triplet file, by its name.

        Args:
            paths: Triplet files, or folders of them.

        Raises:
            InputError: If a file cannot be read, two have one name, or too few questions fit.
        """
        sets: dict[str, QuestionSet] = {}
        for file in list_corpus(paths):
            if set_name(file) in sets:
                raise InputError(
                    "Two files have the same name.",
                    got=set_name(file),
                    fix="Rename one: results go by name.",
                )
            sets[set_name(file)] = self._read(file)
        return sets

    def _read(self, file: Path) -> QuestionSet:
        fitting: list[Question] = []
        contexts: dict[str, tuple[int, TokenIds]] = {}
        triplets = list(read_triplets(file))
        for triplet in triplets:
            if triplet.context not in contexts:
                ids = tokenize(self.tokenizer, triplet.context)
                contexts[triplet.context] = (len(contexts), ids)
            group, ids = contexts[triplet.context]
            if self._fits(triplet, len(ids)):
                question = Question(
                    context=triplet.context,
                    context_ids=ids,
                    prompt=triplet.prompt,
                    answers=triplet.answers,
                    group=group,
                )
                fitting.append(question)
        if len(fitting) < 2:
            raise InputError(
                f"Too few questions of {file} fit.",
                got=f"{len(fitting)} of {len(triplets)}",
                expected=f"2 or more whose context, prompt and answer take {self.window} positions",
                fix="Raise --max-context, lower --max-new-tokens or give another file.",
            )
        too_long = len(triplets) - len(fitting)
        if too_long:
            log.warning("%s: %d of %d questions are too long", file.name, too_long, len(triplets))
        drawn = np.random.default_rng(self.seed).permutation(len(fitting))[: self.count]
        return QuestionSet(
            name=set_name(file),
            questions=tuple(sorted((fitting[i] for i in drawn), key=lambda q: len(q.context_ids))),
            in_file=len(triplets),
            too_long=too_long,
            choices=_choices(triplets),
        )

    def _fits(self, triplet: Triplet, context: int) -> bool:
        """Whether a context of so many tokens, its rendered prompt and any answer fit together."""
        prompt = len(render_prompt(self.tokenizer, triplet.prompt))
        reference = len(render_answer(self.tokenizer, triplet.answers[0]))
        within = self.context is None or context <= self.context
        return within and context + prompt + max(self.answer, reference) + SPARE <= self.window


def set_name(file: Path) -> str:
    """Name of a data set, after its file."""
    return file.name.partition(".jsonl")[0]


def _choices(triplets: Sequence[Triplet]) -> tuple[str, ...]:
    """The commonest writing of each choice, if there are no other answers; else none."""
    writings = Counter(triplet.answers[0] for triplet in triplets)
    found: dict[str, str] = {}
    for writing, _ in writings.most_common():
        found.setdefault(normalised(writing), writing)
    if len(found) < 2 or not set(found) <= set(CHOICES):
        return ()
    return tuple(found[choice] for choice in CHOICES if choice in found)
