from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from icae.errors import InputError
from icae.evals.bootstrap import mean_figure, median_figure, perplexity_figure, ratio_figure


def ends(figure) -> tuple[float, float]:
    return figure["low"], figure["high"]


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_intervals_are_those_of_scipy(statistic: str) -> None:
    values = np.random.default_rng(0).normal(size=30)
    figure = {"mean": mean_figure, "median": median_figure}[statistic](values, seed=3)
    function = getattr(np, statistic)
    found = scipy.stats.bootstrap(
        (values,), function, n_resamples=1000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert figure["value"] == pytest.approx(function(values))
    assert ends(figure) == pytest.approx((found.low, found.high))


def test_intervals_cover_a_known_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    figures = [mean_figure(rng.normal(3.0, 2.0, 40), seed=seed) for seed in range(200)]
    assert 0.88 <= np.mean([f["low"] <= 3.0 <= f["high"] for f in figures]) <= 0.99


def test_intervals_depend_on_the_seed_only() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    assert mean_figure(values, seed=5) == mean_figure(values, seed=5)
    assert mean_figure(values, seed=5) != mean_figure(values, seed=6)


def test_one_value_is_its_own_interval_and_none_an_error() -> None:
    assert mean_figure([2.5], seed=0) == {"value": 2.5, "low": 2.5, "high": 2.5}
    with pytest.raises(InputError, match="nothing to average"):
        mean_figure([], seed=0)


def test_questions_about_one_text_are_resampled_together() -> None:
    values = np.repeat(np.random.default_rng(0).random(12), 8)
    groups = np.repeat(np.arange(12), 8).tolist()
    alone, together = mean_figure(values, seed=0), mean_figure(values, groups=groups, seed=0)
    assert together["value"] == pytest.approx(alone["value"])
    assert np.diff(ends(together)) > 2 * np.diff(ends(alone))
    once = mean_figure(values[::8], groups=range(12), seed=0)
    assert once == pytest.approx(mean_figure(values[::8], seed=0))


def test_a_ratio_is_paired_and_none_where_nothing_counts() -> None:
    others = np.array([0.2, 0.4, 0.6, 0.8])
    ratio = ratio_figure(others / 2, others, groups=range(4), seed=0)
    assert ratio == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    assert ratio_figure(others, np.zeros(4), seed=0) is None
    rare = ratio_figure([1, 0, 0, 0], [2, 0, 0, 0], seed=0)  # most resamples count nothing
    assert rare == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_perplexity_is_exp_of_the_mean_loss() -> None:
    figure = perplexity_figure([1.0, 3.0], seed=0)
    assert tuple(figure.values()) == pytest.approx((math.exp(2), math.exp(1), math.exp(3)))
