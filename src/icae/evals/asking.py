"""An experiment of questions: who answers them, from what was read, and the figures of that."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from icae.config.parsing import check
from icae.config.types import Answer
from icae.engine import Engine
from icae.evals.bootstrap import mean_figure
from icae.evals.experiment import RATIOS, Cell, Experiment, Material, check_ratios
from icae.evals.questions import QuestionReader, QuestionSet
from icae.evals.readers import ANY_RATIO
from icae.evals.respondents import Read
from icae.evals.tables import Row
from icae.evals.text_metrics import (
    exact_match,
    is_empty,
    is_repeating,
    normalised,
    rouge_f1,
    token_f1,
)
from icae.model.prompts import render_answer, tokenize


@dataclass(frozen=True, kw_only=True)
class QuestionExperiment(Experiment):
    """Every data set, respondent and ratio.

    Attributes:
        ratios: Compression ratios, context tokens per slot.
        questions: Questions drawn from each file; None takes all.
        max_new_tokens: Most tokens of an answer.
        max_context: Longest context in tokens; None: what the decoder's window holds.
        input_price: What a million tokens or slots read cost.
        output_price: What a million tokens written cost.
    """

    ratios: tuple[float, ...]
    questions: int | None = 200
    max_new_tokens: int = 64
    max_context: int | None = None
    input_price: float = 0.1
    output_price: float = 0.4

    reads = "questions"
    quick: ClassVar = {"ratios": (4.0,), "questions": 6, "max_new_tokens": 16, "max_context": 256}
    full: ClassVar = {"ratios": RATIOS, "questions": 200}

    def __post_init__(self) -> None:
        check_ratios(self.ratios)
        enough = self.questions is None or self.questions >= 2
        check(enough, "Too few questions to compare.", self.questions, "2 or more")
        room = self.max_new_tokens >= 1
        check(room, "Answers have no room.", self.max_new_tokens, "1 or more tokens")
        prices = (self.input_price, self.output_price)
        check(min(prices) >= 0, "A price is out of range.", prices, "0 or more")

    def draw(self, engine: Engine, inputs: Sequence[Path]) -> dict[str, QuestionSet]:
        """The questions of each data set that fit the decoder.

        Raises:
            InputError: If a file or its questions cannot be used.
        """
        reader = QuestionReader(
            tokenizer=engine.tokenizer,
            window=engine.runtime.context_window,
            answer=self.max_new_tokens,
            context=self.max_context,
            count=self.questions,
            seed=self.seed,
        )
        return reader.read(inputs)

    def remarks(self, material: Material) -> tuple[str, ...]:
        """How to read the figures, and which questions were asked."""
        return (*self.notes, *(own.note for own in material.sets.values()), *material.notes)

    def cells(self, material: Material) -> list[Cell]:
        """For each data set the respondents that no ratio changes, then each ratio."""
        names = list(material.respondents)
        free = [name for name in names if name in ANY_RATIO]
        bound = [name for name in names if name not in ANY_RATIO]
        return [
            Cell(dataset=dataset, ratio=ratio, reader=material.key(name))
            for dataset in material.sets
            for ratio, own in ((None, free), *((ratio, bound) for ratio in self.ratios))
            for name in own
        ]

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The row of a cell."""
        return [self.asked(material, cell)]

    def asked(self, material: Material, cell: Cell) -> Row:
        """The row of a respondent.

        Raises:
            InputError: If a prompt does not fit the decoder.
        """
        tokenizer, questions = material.engine.tokenizer, material.sets[cell.dataset or ""]
        kind = material.name(cell.reader)
        begin = time.perf_counter()
        read = material.respondents[kind](questions.questions, cell.ratio or 1.0)
        answers = read.answer(self.max_new_tokens)
        seconds = time.perf_counter() - begin
        references = [render_answer(tokenizer, q.answers[0]) for q in questions.questions]
        losses = [float(loss_T.mean()) for loss_T in read.losses(references)]
        chosen = choose(read, tokenizer, questions.choices)
        places = float(np.mean(read.positions))
        row: Row = {
            "kind": kind,
            "series": kind,
            "questions": len(questions.questions),
            "context_positions": round(places, 1),
            "kv_mb": round(material.engine.kv_bytes(1) * places / 1e6, 3),
            "seconds": round(seconds / len(answers), 3),
            "cost": round(self.cost(read, answers), 5),
            **answer_figures(questions, answers, losses, chosen=chosen, seed=self.seed),
        }
        if any(text is not None for text in read.texts):
            row["per_question"]["read"] = list(read.texts)
        return row

    def cost(self, read: Read, answers: Sequence[Answer]) -> float:
        """What 1,000 such questions cost, in the currency of the prices."""
        taken = read.read_before + sum(answer.prompt_tokens for answer in answers)
        written = sum(answer.answer_tokens for answer in answers)
        millionths = taken * self.input_price + written * self.output_price
        return 1000 * millionths / 1e6 / len(answers)


def choose(read: Read, tokenizer: Any, choices: Sequence[str]) -> list[str] | None:
    """The likeliest choice for each question: the highest log-probability of its tokens.

    Returns:
        None without choices.
    """
    if not choices:
        return None
    likelihoods = [
        [-float(loss_T.sum()) for loss_T in read.losses([ids] * len(read.prompts))]
        for ids in (tokenize(tokenizer, choice) for choice in choices)
    ]
    return [choices[i] for i in np.argmax(likelihoods, axis=0)]


def answer_figures(
    questions: QuestionSet,
    answers: Sequence[Answer],
    losses: Sequence[float],
    *,
    chosen: Sequence[str] | None,
    seed: int,
) -> Row:
    """All figures, each with its interval over contexts, and every answer as it was written.

    Args:
        questions: The questions.
        answers: The answer to each.
        losses: Mean token loss (nats) of the first reference of each.
        chosen: The likeliest choice of each, where there are choices.
        seed: Seed of the bootstrap.
    """
    asked, written = questions.questions, [answer.text for answer in answers]
    pairs = [(text, question.answers) for text, question in zip(written, asked, strict=True)]
    rouge = [rouge_f1(text, references) for text, references in pairs]
    values: dict[str, list[float]] = {
        "em": [exact_match(text, references) for text, references in pairs],
        "f1": [token_f1(text, references) for text, references in pairs],
        **{name: [score[name] for score in rouge] for name in rouge[0]},
        "loss": list(losses),
        "empty": [float(is_empty(text)) for text in written],
        "repeating": [float(is_repeating(text)) for text in written],
        "unterminated": [float(not answer.finished) for answer in answers],
        "answer_tokens": [float(answer.answer_tokens) for answer in answers],
    }
    if chosen is not None:
        values["accuracy"] = [
            float(normalised(choice) == normalised(question.answers[0]))
            for choice, question in zip(chosen, asked, strict=True)
        ]
    groups = questions.groups
    return {
        "positions": round(float(np.mean([answer.prompt_tokens for answer in answers])), 1),
        **{name: mean_figure(own, groups=groups, seed=seed) for name, own in values.items()},
        "per_question": {
            "group": groups,
            "prompt": [question.prompt for question in asked],
            "reference": [question.answers[0] for question in asked],
            "answer": written,
            **{name: [round(x, 5) for x in own] for name, own in values.items()},
        },
    }
