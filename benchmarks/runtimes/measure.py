"""Timing: medians of repeats, all in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Clock = Literal["wall", "cpu"]
CLOCKS: dict[Clock, Callable[[], float]] = {
    "wall": time.perf_counter,
    # Processor seconds of this process, for orientation on a busy machine: with one thread
    # they are the wall time that an idle machine would need.
    "cpu": time.process_time,
}


@dataclass(frozen=True, kw_only=True)
class Timer:
    """How often and by which clock things are timed."""

    clock: Clock
    repeats: int

    def median(
        self,
        action: Callable[[], object],
        *,
        before: Callable[[], object] = lambda: None,
        repeats: int | None = None,
    ) -> float:
        """Median seconds of an action; ``before`` runs before each time, untimed."""
        return statistics.median(self.all(action, before=before, repeats=repeats))

    def all(
        self,
        action: Callable[[], object],
        *,
        before: Callable[[], object] = lambda: None,
        repeats: int | None = None,
    ) -> list[float]:
        """Seconds of each repeat; one more, the first, is thrown away."""
        now, seconds = CLOCKS[self.clock], []
        for _ in range(1 + (repeats or self.repeats)):
            before()
            start = now()
            action()
            seconds.append(now() - start)
        return seconds[1:]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the results.

    Attributes:
        name: What it is.
        value: The ratio or figure.
        reach: What it should reach, as text, or "" if nothing was set.
        reached: Whether it does, or None.
        parts: What it was made of (seconds, tokens a second, ...).
    """

    name: str
    value: float
    reach: str
    reached: bool | None
    parts: dict[str, float]


def at_least(name: str, value: float, bound: float, **parts: float) -> Figure:
    """A figure that has to be high."""
    return Figure(
        name=name, value=value, reach=f">= {bound:g}", reached=value >= bound, parts=parts
    )


def at_most(name: str, value: float, bound: float, reach: str, **parts: float) -> Figure:
    """A figure that has to be low."""
    return Figure(name=name, value=value, reach=reach, reached=value <= bound, parts=parts)


def reset_peak() -> None:
    """Start counting this process's peak memory anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Peak resident memory of this process since `reset_peak` (Linux)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def slope(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept of the least-squares line."""
    fit = statistics.linear_regression(xs, ys)
    return fit.slope, fit.intercept
