"""Figures with 95 % percentile bootstrap intervals over contexts. Pure numpy.

The generator is seeded by the caller, so that equal measurements give equal intervals.
`scipy.stats.bootstrap` draws the same resamples and gives the same percentiles, but refuses a
single context and has no interval where one resample counts nothing; both occur here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icae.errors import InputError

RESAMPLES = 1000
"""Bootstrap resamples behind every interval."""
LEVEL = 0.95
"""Share of resamples inside an interval."""


class Figure(TypedDict):
    """A statistic of all contexts, and the ends of its interval."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], count: int, *, seed: int
) -> Figure:
    """A statistic with its interval.

    Args:
        statistic: Indices of contexts [..., count] -> their statistic [...]; nan where a
            resample counts nothing, which is then left out.
        count: Contexts measured.
        seed: Seed of the resamples.
    """
    picks = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(statistic(picks), [tail, 100 - tail])
    return Figure(value=float(statistic(np.arange(count))), low=float(low), high=float(high))


def mean_figure(values: ArrayLike, *, seed: int, groups: Sequence[int] | None = None) -> Figure:
    """Mean of single values.

    Args:
        values: One value for each context or question.
        seed: Seed of the bootstrap.
        groups: The context of each question: those about one context are drawn together, so
            that they do not count as independent. None: each value is a context of its own.

    Raises:
        InputError: If there is none.
    """
    figure = ratio_figure(values, np.ones(np.shape(values)), seed=seed, groups=groups)
    if figure is None:
        raise InputError("There is nothing to average.", got="no sample", expected="at least one")
    return figure


def context_figures(values: Mapping[str, Sequence[float]], *, seed: int) -> dict[str, Any]:
    """A row of means, each with its interval, and the values of single contexts behind them."""
    figures = {key: mean_figure(own, seed=seed) for key, own in values.items()}
    return {**figures, "per_context": {key: list(own) for key, own in values.items()}}


def median_figure(values: ArrayLike, *, seed: int) -> Figure:
    """Median over contexts."""
    array = np.asarray(values, dtype=np.float64)
    return bootstrap(lambda picks: np.median(array[picks], axis=-1), len(array), seed=seed)


def ratio_figure(
    parts: ArrayLike, totals: ArrayLike, *, seed: int, groups: Sequence[int] | None = None
) -> Figure | None:
    """Sum of parts over sum of totals, both of the same contexts.

    Args:
        parts: What counts in each context (or question), for example right words.
        totals: What it is counted of there, for example words.
        seed: Seed of the bootstrap. A resample whose totals are all 0 is left out.
        groups: The context of each question; see `mean_figure`.

    Returns:
        None if the totals are all 0.
    """
    part, total = np.asarray(parts, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    if groups is not None:
        part, total = _group_sums(part, groups), _group_sums(total, groups)
    if not total.sum():
        return None

    def ratio(picks: NDArray[np.int64]) -> NDArray[np.float64]:
        sums, bases = part[picks].sum(axis=-1), total[picks].sum(axis=-1)
        return np.where(bases > 0, sums / np.where(bases > 0, bases, 1.0), np.nan)

    return bootstrap(ratio, len(part), seed=seed)


def perplexity_figure(losses: ArrayLike, *, seed: int) -> Figure:
    """Exp of the mean loss, over contexts of equally many scored tokens.

    For a ratio of two perplexities on the same tokens pass the differences of the losses:
    exp of their mean is the ratio, its interval is paired.

    Args:
        losses: Mean token loss of each context (nats).
        seed: Seed of the bootstrap.
    """
    mean = mean_figure(losses, seed=seed)
    value, low, high = (math.exp(mean[end]) for end in ("value", "low", "high"))
    return Figure(value=value, low=low, high=high)


def _group_sums(values: NDArray[np.float64], groups: Sequence[int]) -> NDArray[np.float64]:
    """Sum of the values of each group."""
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(places, weights=values).astype(np.float64)
