from __future__ import annotations

from typing import Any

import pytest
import torch

from icae.model.losses import TaskScore
from icae.train.tally import Tally


def score(objective: Any, losses: list[float], correct: list[bool] | None = None) -> TaskScore:
    values = torch.tensor(losses)
    return TaskScore(
        objective=objective,
        loss_sum=values.sum(),
        labels=len(losses),
        correct_T=torch.tensor(correct or [False] * len(losses)),
        log_probs_T=-values,
    )


def test_tally_gives_token_means_over_micro_batches_of_different_sizes() -> None:
    tally = Tally()
    tally.add([score("ae", [1.0, 3.0], [True, False])])
    tally.add([score("ae", [8.0], [True]), score("ft", [0.5], [True])])
    assert tally.figures() == pytest.approx(
        {"ae_loss": 4.0, "ae_accuracy": 2 / 3, "ft_loss": 0.5, "ft_accuracy": 1.0}
    )


def test_figures_are_means_over_the_tokens_of_all_processes() -> None:
    """The mean of the means would be 3.0."""
    mine, other = Tally(), Tally()
    mine.add([score("ae", [1.0], [True])])
    other.add([score("ae", [4.0, 5.0, 6.0]), score("lm", [2.0])])
    sums: list[torch.Tensor] = []
    other.figures(lambda own: sums.append(own) or own)  # type: ignore[func-returns-value]
    figures = mine.figures(lambda own: own + sums[0])
    expected = {"ae_loss": 4.0, "ae_accuracy": 0.25, "lm_loss": 2.0, "lm_accuracy": 0.0}
    assert figures == pytest.approx(expected)
