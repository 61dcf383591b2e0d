"""Where output goes: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from icae.errors import IcaeError

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total)."""

SECONDS_BETWEEN_LINES = 30.0
"""Between two lines of progress where standard error is not a terminal."""

# Control characters steer a terminal; surrogates cannot be printed at all.
_UNSAFE = dict.fromkeys(
    (*range(32), *range(127, 160), *range(0xD800, 0xE000)), "\N{REPLACEMENT CHARACTER}"
)
_UNSAFE_IN_TEXT = {code: mark for code, mark in _UNSAFE.items() if chr(code) not in "\n\r\t"}


class PlainConsole(Console):
    """A console that takes text as it is: no markup, no emoji codes, no highlighting."""

    def __init__(self, file: TextIO) -> None:
        super().__init__(file=file, markup=False, emoji=False, highlight=False)

    def on_broken_pipe(self) -> None:
        """Pass a closed pipe on to the command, which knows the exit code."""
        raise BrokenPipeError


def results() -> Console:
    """A console for results, on standard output."""
    return PlainConsole(sys.stdout)


def messages() -> Console:
    """A console for progress, warnings and errors, on standard error."""
    return PlainConsole(sys.stderr)


_QUIET = ContextVar("quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """No progress, notes and warnings for a while; errors stay."""
    before = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(before)


def note(text: str, *, style: str = "dim") -> None:
    """Print information on standard error: one line, on a terminal broken between words."""
    if not _QUIET.get():
        out = messages()
        out.print(Text(text, style=style), soft_wrap=not out.is_terminal)


def warn(text: str) -> None:
    """Print a warning on standard error, in yellow on a terminal."""
    note(f"Warning: {text}", style="yellow")


def report_error(error: IcaeError) -> None:
    """Print an error on standard error, in red on a terminal."""
    messages().print(Text(str(error), style="red"), soft_wrap=True)


def write_text(text: str) -> None:
    """Write a piece of a result to standard output at once, without a line break.

    On a terminal, control characters other than line breaks and tabs are replaced, so
    that a document cannot steer the terminal; elsewhere the text passes unchanged.
    """
    stream = sys.stdout
    if stream.isatty():
        text = printable(text)
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, errors="replace").decode(encoding))
    stream.flush()


def write_json(payload: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output; a number that is not finite becomes null."""
    finite = _finite(payload)
    text = json.dumps(finite, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(finite, allow_nan=False)
    print(text, flush=True)


def write_error(kind: str, error: IcaeError) -> None:
    """Print an error as one JSON object on standard output."""
    parts = {name: getattr(error, name) for name in ("message", "got", "expected", "fix")}
    write_json({"error": {"type": kind, **parts}})


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_figures(figures: Mapping[str, str]) -> None:
    """Print label and value, one pair a line; a long value is not folded."""
    width = max(len(label) for label in figures)
    out = results()
    for label, value in figures.items():
        out.print(f"{label:<{width}}  {value.translate(_UNSAFE)}", soft_wrap=True)


def table(*headings: str, right: Collection[str] = ()) -> Table:
    """An empty table without lines; the columns in ``right`` are lined up on the right."""
    made = Table(box=None, pad_edge=False)
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", no_wrap=True)
    return made


def table_with_totals(footers: Mapping[str, str]) -> Table:
    """An empty table with a line of totals: heading -> its footer, numbers but for the first."""
    made = Table(box=None, pad_edge=False, show_footer=True)
    for number, (heading, footer) in enumerate(footers.items()):
        made.add_column(heading, footer=footer, justify="right" if number else "left")
    return made


class _Rate(ProgressColumn):
    """How much is done in a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g}/s")


@contextmanager
def progress(label: str) -> Iterator[ProgressCallback]:
    """Show how far work is, how fast, and how long it still takes, on standard error.

    A bar on a terminal, elsewhere a line every half minute. Yields what is called with
    (done, total).
    """
    out = messages()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=out,
        transient=True,
        redirect_stdout=False,
        disable=_QUIET.get() or not out.is_terminal,
    ) as bar:
        task = bar.add_task(label, total=None)
        begin = said = time.monotonic()

        def show(done: int, total: int) -> None:
            nonlocal said
            bar.update(task, completed=done, total=total)
            now = time.monotonic()
            if not out.is_terminal and 0 < done < total and now - said >= SECONDS_BETWEEN_LINES:
                said = now
                rate = done / (now - begin)
                left = time_text((total - done) / rate)
                note(f"{label}: {done / total:.0%}, {rate:.3g}/s, about {left} left")

        yield show


@contextmanager
def status(label: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on standard error, if that is a terminal; yields what replaces the label."""
    console = messages()
    if _QUIET.get() or not console.is_terminal:
        yield lambda text: None
        return
    with console.status(Text(label)) as spinner:
        yield lambda text: spinner.update(Text(text))


def silence_output() -> None:
    """Send what cannot be written any more nowhere, so that exit stays quiet."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(devnull, stream.fileno())
    os.close(devnull)


class StderrHandler(logging.Handler):
    """Log lines to whatever standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as a line."""
        if _QUIET.get() and record.levelno <= logging.WARNING:
            return
        prefix = "Warning: " if record.levelno == logging.WARNING else ""
        print(prefix + self.format(record), file=sys.stderr, flush=True)


def log_to_stderr(level: int) -> None:
    """Send the package's log records of a level and above to standard error."""
    logger = logging.getLogger("icae")
    handler = next((h for h in logger.handlers if isinstance(h, StderrHandler)), None)
    if handler is None:
        handler = StderrHandler()
        logger.addHandler(handler)
    handler.setLevel(level)
    if not logger.isEnabledFor(level):
        logger.setLevel(level)


def printable(text: str) -> str:
    """A text with control characters replaced; line breaks and tabs stay."""
    return text.translate(_UNSAFE_IN_TEXT)


def preview(text: str, *, width: int = 48) -> str:
    """The first words of a text on one line of at most `width` characters."""
    line = " ".join(text[: 8 * width].split()).translate(_UNSAFE)
    if len(line) <= width:
        return line
    cut = line[: width - 1]
    words, space, _ = cut.rpartition(" ")
    return (words if space and len(words) > width // 2 else cut) + "…"


def size_text(count: int) -> str:
    """A number of bytes for people: ``size_text(11_800_000) == "11.8 MB"``."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"


def time_text(seconds: float) -> str:
    """A duration for people: ``time_text(90) == "1 min 30 s"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count_text(count: int, noun: str) -> str:
    """A number of things for people: ``count_text(1, "span") == "1 span"``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def percent_text(share: float | None) -> str:
    """A share 0..1 for people; a dash where nothing was measured."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.1f} %"
