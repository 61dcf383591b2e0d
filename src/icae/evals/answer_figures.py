"""Figures of the answers of one reader to the questions of one data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from icae.config.types import Answer
from icae.evals.answer_metrics import (
    exact_match,
    is_empty,
    is_repeating,
    normalised,
    rouge_f1,
    token_f1,
)
from icae.evals.experiment import Row, plain
from icae.evals.memories import Tick
from icae.evals.metrics import grouped_mean_estimate
from icae.evals.questions import Question
from icae.evals.readers import Reader, Reading
from icae.model import tokenize


def answer_figures(
    questions: Sequence[Question],
    answers: Sequence[Answer],
    losses: Sequence[float],
    *,
    chosen: Sequence[str] | None,
    groups: Sequence[int],
    seed: int,
) -> Row:
    """All figures, each with its interval over contexts, and every answer as it was written.

    Args:
        questions: The questions.
        answers: The answer to each.
        losses: Mean token loss (nats) of the first reference of each.
        chosen: The likeliest choice of each, where there are choices.
        groups: The context of each.
        seed: Seed of the bootstrap.
    """
    written = [answer.text for answer in answers]
    pairs = [(text, question.answers) for text, question in zip(written, questions, strict=True)]
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
            for choice, question in zip(chosen, questions, strict=True)
        ]
    figures = {
        name: plain(grouped_mean_estimate(value, groups, seed=seed))
        for name, value in values.items()
    }
    positions = float(np.mean([answer.prompt_tokens for answer in answers]))
    details = {name: [round(x, 5) for x in value] for name, value in values.items()}
    return {
        "positions": round(positions, 1),
        **figures,
        "per_question": {
            "group": list(groups),
            "prompt": [question.prompt for question in questions],
            "reference": [question.answers[0] for question in questions],
            "answer": written,
            **details,
        },
    }


def choose(
    reader: Reader,
    readings: Sequence[Reading],
    tokenizer: Any,
    *,
    choices: Sequence[str],
    tick: Tick,
) -> list[str]:
    """The likeliest choice for each question: the highest log-probability of its tokens.

    Args:
        reader: Who chooses.
        readings: What it read for each question.
        tokenizer: The base model's tokenizer.
        choices: The answers to choose from, without the end of the turn.
        tick: Called with the tokens that went through the model.
    """
    likelihoods = []
    for choice in choices:
        losses = reader.losses(readings, [tokenize(tokenizer, choice)] * len(readings), tick)
        likelihoods.append([-float(loss_T.sum()) for loss_T in losses])
    return [choices[i] for i in np.argmax(likelihoods, axis=0)]
