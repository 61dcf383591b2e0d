"""Summing task scores into the training loss and into reported figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from icae.config import ObjectiveConfig
from icae.config.types import OBJECTIVES, Objective
from icae.model import Sample, TaskScore


def objective_weights(
    config: ObjectiveConfig, present: Mapping[Objective, int], *, progress: float = 0.0
) -> dict[Objective, float]:
    """Weight of each objective's token mean in ``lambda * L_AE + (1 - lambda) * L_LM`` + FT.

    Args:
        config: lambda and the instruction share s; text has weight 1 - s, FT has s.
        present: Scored tokens of each objective in the step.
        progress: Share of the run that is done (0..1); lambda may be scheduled.
    """
    text, ae_weight = 1.0 - config.ft_share, config.at(progress)
    weights: dict[Objective, float] = {
        "ae": text * ae_weight,
        "lm": text * (1.0 - ae_weight),
        "ft": config.ft_share,
    }
    return {name: weights[name] for name in OBJECTIVES if present.get(name, 0) > 0}


def count_labels(samples: Sequence[Sample]) -> dict[Objective, int]:
    """Scored tokens of each objective in a whole step."""
    counts: dict[Objective, int] = dict.fromkeys(OBJECTIVES, 0)
    for sample in samples:
        for task in sample.tasks:
            counts[task.objective] += task.labels
    return counts


def count_answers(samples: Sequence[Sample]) -> int:
    """Instructions in a whole step."""
    return sum(task.objective == "ft" for sample in samples for task in sample.tasks)


def step_loss(
    scores: Sequence[TaskScore],
    weights: Mapping[Objective, float],
    counts: Mapping[Objective, int],
    *,
    answers: int | None = None,
) -> Tensor:
    """A micro-batch's part of the step's loss: its parts add up to the weighted means.

    Args:
        scores: Scores of the micro-batch.
        weights: Weight of each objective's mean.
        counts: Scored tokens of each objective in the whole step.
        answers: Instructions in the whole step, if each counts alike; None: each token does.
    """
    parts = []
    for score in scores:
        if score.objective == "ft" and answers is not None:
            share = 1 / (score.labels * answers)
        else:
            share = 1 / counts[score.objective]
        parts.append(score.minimised * (weights[score.objective] * share))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class Tally:
    """Running sums of losses and correct tokens by objective.

    Sums stay on the device until they are read, so that counting never waits for it.
    """

    def __init__(self) -> None:
        self.loss: dict[Objective, Tensor] = {}
        self.correct: dict[Objective, Tensor] = {}
        self.labels: dict[Objective, int] = dict.fromkeys(OBJECTIVES, 0)

    def add(self, scores: Sequence[TaskScore]) -> None:
        """Count the scores of one micro-batch."""
        for name in OBJECTIVES:
            own = [score for score in scores if score.objective == name]
            if own:
                loss = torch.stack([score.loss_sum.detach() for score in own]).sum()
                correct = torch.cat([score.correct_T for score in own]).sum()
                self.loss[name] = self.loss[name] + loss if name in self.loss else loss
                self.correct[name] = (
                    self.correct[name] + correct if name in self.correct else correct
                )
                self.labels[name] += sum(score.labels for score in own)

    def figures(self, add_up: Callable[[Tensor], Tensor] = lambda own: own) -> dict[str, float]:
        """Mean token loss (nats) and token accuracy of every objective seen.

        Args:
            add_up: Adds the sums of all processes, [objectives, 3] float64; by default
                there is only this one. Every process has to call it at the same time.
        """
        sums = [
            [
                float(self.loss.get(name, 0.0)),
                float(self.correct.get(name, 0)),
                float(self.labels[name]),
            ]
            for name in OBJECTIVES
        ]
        result: dict[str, float] = {}
        every = add_up(torch.tensor(sums, dtype=torch.float64)).tolist()
        for name, (loss, correct, labels) in zip(OBJECTIVES, every, strict=True):
            if labels:
                result[f"{name}_loss"] = loss / labels
                result[f"{name}_accuracy"] = correct / labels
        return result
