from __future__ import annotations

from typing import Any

import pytest

from icae.config.data import RatioStage
from icae.train.evaluate import Evaluation


def test_evaluation_is_the_same_at_every_call(tiny: Any) -> None:
    shards, model = tiny.shards(), tiny.model()
    first, second = (Evaluation(tiny.recipe(), shards) for _ in range(2))
    assert first.run(model) == first.run(model) == second.run(model)


def test_figures_are_given_by_ratio_and_as_their_mean(tiny: Any) -> None:
    figures = Evaluation(tiny.recipe(), tiny.shards()).run(tiny.model())
    for name in ("ae_loss", "ae_accuracy", "lm_loss", "lm_accuracy"):
        assert figures[name] == pytest.approx((figures[f"{name}_2x"] + figures[f"{name}_4x"]) / 2)
    assert figures["ae_loss_2x"] != figures["ae_loss_4x"]


def test_the_last_ratios_are_evaluated_on_the_longest_contexts_that_fit_a_span(tiny: Any) -> None:
    stages = (RatioStage(until=0.5, ratios={1.0: 1.0}), RatioStage(ratios={8.0: 1.0, 4.0: 2.0}))
    data = {"ratio_curriculum": stages, "context_lengths": {10: 1.0, 14: 1.0, 48: 1.0}}
    evaluation = Evaluation(tiny.recipe(data=data), tiny.shards([100]))
    assert evaluation.ratios == [4.0, 8.0]
    assert {len(context) for context, _ in evaluation.windows} == {14}
