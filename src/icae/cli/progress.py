"""Progress of work that takes minutes: a share, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from icae.cli import console

SECONDS_BETWEEN_LINES = 30.0
"""Between two lines of progress where standard error is not a terminal."""


@contextmanager
def eta_progress(label: str) -> Iterator[console.ProgressCallback]:
    """Show how far the work is and how long it still takes, on standard error.

    A bar on a terminal, elsewhere a line every half minute.

    Args:
        label: What is being done.

    Yields:
        A function to call with (done, total).
    """
    out = console.messages()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        redirect_stdout=False,
        disable=not out.is_terminal,
    ) as bar:
        task = bar.add_task(label, total=None)
        begin = said = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal said
            bar.update(task, completed=done, total=total)
            now = time.monotonic()
            if not out.is_terminal and done and now - said >= SECONDS_BETWEEN_LINES:
                said = now
                left = (now - begin) * (total - done) / done
                console.note(f"{label}: {done / total:.0%}, about {time_text(left)} left")

        yield show


def time_text(seconds: float) -> str:
    """A duration for people: ``time_text(90) == "1 min 30 s"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
