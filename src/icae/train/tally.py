"""Reported figures: sums of losses and correct tokens, read as means."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from icae.config.types import OBJECTIVES, Objective
from icae.model.losses import TaskScore


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
                self.loss[name] = self.loss.get(name, 0) + loss
                self.correct[name] = self.correct.get(name, 0) + correct
                self.labels[name] += sum(score.labels for score in own)

    def figures(self, add_up: Callable[[Tensor], Tensor] = lambda own: own) -> dict[str, float]:
        """Mean token loss (nats) and token accuracy of every objective seen.

        Args:
            add_up: Adds the sums of all processes, [objectives, 3] float64; by default
                there is only this one. Every process has to call it at the same time.
        """
        sums = [
            [float(self.loss.get(name, 0)), float(self.correct.get(name, 0)), self.labels[name]]
            for name in OBJECTIVES
        ]
        result: dict[str, float] = {}
        every = add_up(torch.tensor(sums, dtype=torch.float64)).tolist()
        for name, (loss, correct, labels) in zip(OBJECTIVES, every, strict=True):
            if labels:
                result[f"{name}_loss"] = loss / labels
                result[f"{name}_accuracy"] = correct / labels
        return result
