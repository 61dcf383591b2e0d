from __future__ import annotations

import io
import json
import logging
import sys
from types import SimpleNamespace

import pytest

from icae.cli import console
from icae.errors import IcaeError


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_error_is_red_on_a_terminal_and_plain_elsewhere(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream, colour in ((Terminal(), "\x1b[31m"), (io.StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", stream)
        console.report_error(IcaeError("Bad.", got="[bold]x[/bold]"))
        assert stream.getvalue().startswith(colour + "Bad.")
        assert "[bold]x[/bold]" in stream.getvalue()
        assert ("\x1b" in stream.getvalue()) == bool(colour)


def test_numbers_that_json_does_not_know_become_null(capsys) -> None:
    console.write_json({"loss": float("nan"), "list": [float("inf"), 1.5], "none": None})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "list": [None, 1.5], "none": None}


def test_json_survives_an_output_that_cannot_encode_it(monkeypatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console.write_json({"name": "é\udc80"})
    assert json.loads(raw.getvalue()) == {"name": "é\udc80"}


def test_text_on_a_terminal_cannot_steer_it(monkeypatch) -> None:
    for stream, expected in ((Terminal(), "a\ufffd[2Jb\n\tc"), (io.StringIO(), "a\x1b[2Jb\n\tc")):
        monkeypatch.setattr(sys, "stdout", stream)
        console.write_text("a\x1b[2Jb\n\tc")
        assert stream.getvalue() == expected


def test_text_survives_an_output_that_cannot_encode_it(monkeypatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console.write_text("naïve")
    assert raw.getvalue() == b"na?ve"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("  two\n\n words ", "two words"),
        ("bell\x07", "bell\ufffd"),
        ("one two three four five", "one two three four…"),
        ("x" * 40, "x" * 19 + "…"),
    ],
)
def test_preview_is_one_line_that_fits(text, expected) -> None:
    assert console.preview(text, width=20) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (11_800_000, "11.8 MB"), (999_960, "1 MB")],
)
def test_sizes_are_readable(count, expected) -> None:
    assert console.size_text(count) == expected


def test_progress_prints_nothing_without_a_terminal(capsys) -> None:
    with console.progress("Working") as on_progress:
        on_progress(1, 2)
    with console.status("Loading") as relabel:
        relabel("Still loading")
    assert capsys.readouterr() == ("", "")


def test_progress_is_drawn_on_stderr(monkeypatch, capsys) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with console.progress("Working") as on_progress:
        on_progress(1, 2)
    assert "Working" in terminal.getvalue()
    assert "1/2" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_log_lines_go_to_stderr_from_the_level_asked_for(capsys) -> None:
    logger = logging.getLogger("icae.somewhere")
    console.log_to_stderr(logging.WARNING)
    logger.info("quiet")
    logger.warning("watch out")
    console.log_to_stderr(logging.INFO)
    logger.info("step 1")
    assert capsys.readouterr() == ("", "Warning: watch out\nstep 1\n")


def test_figures_are_lined_up_and_not_folded(capsys) -> None:
    console.print_figures({"a": "x " * 60, "longer": "one\nline"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a       x x")
    assert lines[1] == "longer  one\ufffdline"


@pytest.mark.parametrize(("count", "expected"), [(0, "0 spans"), (1, "1 span"), (2, "2 spans")])
def test_counts_are_said_in_singular_and_plural(count: int, expected: str) -> None:
    assert console.count_text(count, "span") == expected


def test_time_left_is_said_where_there_is_no_terminal(monkeypatch, capsys) -> None:
    clock = iter([0.0, 10.0, 40.0, 50.0, 80.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with console.progress("Measuring") as show:
        for done in (5, 25, 30, 50):
            show(done, 100)
    assert capsys.readouterr().err.splitlines() == [
        "Measuring: 25%, about 2 min 0 s left",
        "Measuring: 50%, about 1 min 20 s left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.4, "9 s"), (90, "1 min 30 s"), (7260, "2 h 1 min")]
)
def test_times_are_for_people(seconds, text) -> None:
    assert console.time_text(seconds) == text
