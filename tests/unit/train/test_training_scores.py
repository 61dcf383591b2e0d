from __future__ import annotations

import numpy as np
import pytest
import torch

from icae.config import ObjectiveConfig
from icae.errors import ConfigError
from icae.model import Sample, TaskScore
from icae.model.objectives import autoencoding, combine, continuation, instruction
from icae.train.scores import (
    Tally,
    count_answers,
    count_labels,
    objective_weights,
    step_loss,
)


def score(objective: str, losses: list[float], correct: list[bool] | None = None) -> TaskScore:
    values = torch.tensor(losses)
    return TaskScore(
        objective=objective,  # type: ignore[arg-type]
        loss_sum=values.sum(),
        minimised=values.sum(),
        labels=len(losses),
        correct_T=torch.tensor(correct or [False] * len(losses)),
        log_probs_T=-values,
    )


def test_step_loss_is_lambda_ae_plus_the_rest_lm() -> None:
    config = ObjectiveConfig(ae_weight=0.3)
    scores = [score("ae", [1.0, 2.0, 6.0]), score("lm", [4.0, 8.0])]
    counts = {"ae": 3, "lm": 2, "ft": 0}
    loss = step_loss(scores, objective_weights(config, counts), counts)
    assert float(loss) == pytest.approx(0.3 * 3.0 + 0.7 * 6.0)
    assert float(loss) == pytest.approx(combine(3.0, 6.0, 0.3))


def test_instruction_share_splits_the_loss_between_text_and_instructions() -> None:
    config = ObjectiveConfig(ae_weight=0.5, ft_share=0.25)
    weights = objective_weights(config, {"ae": 10, "lm": 5, "ft": 3})
    assert weights == pytest.approx({"ae": 0.375, "lm": 0.375, "ft": 0.25})


def test_objectives_without_scored_tokens_get_no_weight() -> None:
    config = ObjectiveConfig(ae_weight=0.5, ft_share=0.25)
    assert set(objective_weights(config, {"ae": 10, "lm": 0, "ft": 0})) == {"ae"}


def test_parts_of_micro_batches_add_up_to_the_whole_step() -> None:
    config = ObjectiveConfig(ae_weight=0.4)
    scores = [
        score("ae", [1.0]),
        score("lm", [3.0, 5.0]),
        score("ae", [2.0, 2.0, 9.0]),
        score("lm", [1.0]),
    ]
    counts = {"ae": 4, "lm": 3, "ft": 0}
    weights = objective_weights(config, counts)
    whole = float(step_loss(scores, weights, counts))
    parts = [float(step_loss(scores[i : i + 2], weights, counts)) for i in (0, 2)]
    assert sum(parts) == pytest.approx(whole)
    assert whole == pytest.approx(0.4 * 14 / 4 + 0.6 * 9 / 3)


def test_answers_may_count_alike_whatever_their_length() -> None:
    config = ObjectiveConfig(ae_weight=1.0, ft_share=0.5, ft_mean="answers")
    scores = [score("ae", [4.0, 2.0]), score("ft", [1.0]), score("ft", [3.0, 5.0, 7.0, 9.0])]
    counts = {"ae": 2, "lm": 0, "ft": 5}
    weights = objective_weights(config, counts)
    whole = float(step_loss(scores, weights, counts, answers=2))
    assert whole == pytest.approx(0.5 * 3.0 + 0.5 * (1.0 + 6.0) / 2)
    parts = [step_loss(scores[i : i + 1], weights, counts, answers=2) for i in range(3)]
    assert sum(map(float, parts)) == pytest.approx(whole)
    by_token = float(step_loss(scores, weights, counts))
    assert by_token == pytest.approx(0.5 * 3.0 + 0.5 * 25.0 / 5)
    with pytest.raises(ConfigError, match="ft_mean"):
        ObjectiveConfig(ft_mean="words")  # type: ignore[arg-type]


def test_labels_are_counted_by_objective_over_the_whole_step() -> None:
    ids = np.arange(10)
    text = Sample(context_ids=ids, ratio=2.0, tasks=(autoencoding(ids), continuation(ids[:3])))
    asked = Sample(context_ids=ids, ratio=2.0, tasks=(instruction(ids[:4], ids[:2]),))
    assert count_labels([text, text, asked]) == {"ae": 20, "lm": 6, "ft": 2}
    assert count_answers([text, text, asked]) == 1


def test_tally_gives_token_means_over_micro_batches_of_different_sizes() -> None:
    tally = Tally()
    tally.add([score("ae", [1.0, 3.0], [True, False])])
    tally.add([score("ae", [8.0], [True]), score("ft", [0.5], [True])])
    assert tally.figures() == pytest.approx(
        {"ae_loss": 4.0, "ae_accuracy": 2 / 3, "ft_loss": 0.5, "ft_accuracy": 1.0}
    )


def test_tally_of_nothing_has_no_figures() -> None:
    assert Tally().figures() == {}


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
