"""Timing: medians of repeats, all in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

REPEATS = 5


def median(
    action: Callable[[], object],
    *,
    before: Callable[[], object] = lambda: None,
    repeats: int = REPEATS,
) -> float:
    """Median seconds of an action; ``before`` runs before each time, untimed.

    The action runs once more at first, which is not counted.
    """
    seconds = []
    for _ in range(1 + repeats):
        before()
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the results.

    Attributes:
        name: What it is.
        value: The ratio or figure.
        reach: What it should reach, as text.
        reached: Whether it does.
        parts: What it was made of (seconds, tokens a second, ...).
    """

    name: str
    value: float
    reach: str
    reached: bool
    parts: dict[str, float]


def at_least(name: str, value: float, bound: float, **parts: float) -> Figure:
    """A figure that has to be high."""
    return Figure(
        name=name, value=value, reach=f">= {bound:g}", reached=value >= bound, parts=parts
    )


def at_most(name: str, value: float, bound: float, reach: str, **parts: float) -> Figure:
    """A figure that has to be low."""
    return Figure(name=name, value=value, reach=reach, reached=value <= bound, parts=parts)
