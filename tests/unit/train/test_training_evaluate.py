from __future__ import annotations

from typing import Any

import pytest

from icae.config.data import RatioStage
from icae.train.evaluate import BATCH, Evaluation


def test_evaluation_is_the_same_at_every_call(
    build_recipe: Any, build_shards: Any, build_model: Any
) -> None:
    shards, model = build_shards(), build_model()
    first, second = (Evaluation(build_recipe(), shards) for _ in range(2))
    assert first.run(model) == first.run(model) == second.run(model)


def test_figures_are_given_by_ratio_and_as_their_mean(
    build_recipe: Any, build_shards: Any, build_model: Any
) -> None:
    figures = Evaluation(build_recipe(), build_shards()).run(build_model())
    for name in ("ae_loss", "ae_accuracy", "lm_loss", "lm_accuracy"):
        assert figures[name] == pytest.approx((figures[f"{name}_2x"] + figures[f"{name}_4x"]) / 2)
    assert figures["ae_loss_2x"] != figures["ae_loss_4x"]


def test_ratios_of_the_last_stage_are_evaluated(build_recipe: Any, build_shards: Any) -> None:
    stages = (RatioStage(until=0.5, ratios={1.0: 1.0}), RatioStage(ratios={8.0: 1.0, 4.0: 2.0}))
    recipe = build_recipe(data={"ratio_curriculum": stages})
    assert Evaluation(recipe, build_shards()).ratios == [4.0, 8.0]


def test_contexts_are_as_long_as_the_longest_that_fits_a_span(
    build_recipe: Any, build_shards: Any
) -> None:
    recipe = build_recipe(data={"context_lengths": {10: 1.0, 14: 1.0, 48: 1.0}})
    evaluation = Evaluation(recipe, build_shards([100]))
    assert {len(context) for context, _ in evaluation.windows} == {14}


def test_batching_does_not_change_the_figures(
    build_recipe: Any, build_shards: Any, build_model: Any
) -> None:
    recipe = build_recipe(run={"eval_samples": BATCH + 3})
    evaluation, model = Evaluation(recipe, build_shards()), build_model()
    whole = evaluation.run(model)
    losses = []
    for window in evaluation.windows:
        single = Evaluation(recipe, build_shards(name=f"s{len(losses)}"))
        single.windows = [window]
        losses.append(single.run(model))
    labels = [len(context) for context, _ in evaluation.windows]
    mean = sum(f["ae_loss"] * n for f, n in zip(losses, labels, strict=True)) / sum(labels)
    assert whole["ae_loss"] == pytest.approx(mean, rel=1e-5)
