from __future__ import annotations

import io
import json
import logging
import sys
from types import SimpleNamespace

import pytest

from icae.cli import console
from icae.errors import IcaeError


def test_error_is_red_on_a_terminal_and_plain_elsewhere(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream, colour in ((terminal(), "\x1b[31m"), (io.StringIO(), "")):
        monkeypatch.setattr(sys, "stderr", stream)
        console.report_error(IcaeError("Bad.", got="[bold]x[/bold]"))
        assert stream.getvalue().startswith(colour + "Bad.")
        assert "[bold]x[/bold]" in stream.getvalue()
        assert ("\x1b" in stream.getvalue()) == bool(colour)


def test_numbers_that_json_does_not_know_become_null(capsys):
    console.write_json({"loss": float("nan"), "list": [float("inf"), 1.5], "none": None})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "list": [None, 1.5], "none": None}


def test_text_on_a_terminal_cannot_steer_it(terminal, monkeypatch):
    for stream, expected in ((terminal(), "a\ufffd[2Jb\n\tc"), (io.StringIO(), "a\x1b[2Jb\n\tc")):
        monkeypatch.setattr(sys, "stdout", stream)
        console.write_text("a\x1b[2Jb\n\tc")
        assert stream.getvalue() == expected


def test_results_survive_an_output_that_cannot_encode_them(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console.write_json({"name": "é\udc80"})
    console.write_text("naïve")
    line, text = raw.getvalue().split(b"\n")
    assert (json.loads(line), text) == ({"name": "é\udc80"}, b"na?ve")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (console.preview("bell\x07 \n\n two ", width=20), "bell\ufffd two"),
        (console.preview("one two three four five", width=20), "one two three four…"),
        (console.preview("x" * 40, width=20), "x" * 19 + "…"),
        (console.size_text(999), "999 B"),
        (console.size_text(999_960), "1 MB"),
        (console.count_text(1, "span"), "1 span"),
        (console.time_text(90), "1 min 30 s"),
        (console.time_text(7260), "2 h 1 min"),
    ],
)
def test_figures_are_for_people(said, expected):
    assert said == expected


def test_progress_is_drawn_on_stderr(terminal, monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    stderr = terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with console.progress("Working") as on_progress:
        on_progress(1, 2)
    assert "Working" in stderr.getvalue()
    assert "1/2" in stderr.getvalue()
    assert capsys.readouterr().out == ""


def test_log_lines_go_to_stderr_from_the_level_asked_for(capsys):
    logger = logging.getLogger("icae.somewhere")
    console.log_to_stderr(logging.WARNING)
    logger.info("quiet")
    logger.warning("watch out")
    console.log_to_stderr(logging.INFO)
    logger.info("step 1")
    assert capsys.readouterr() == ("", "Warning: watch out\nstep 1\n")


def test_a_long_note_breaks_between_words_on_a_terminal_and_nowhere_else(capsys, monkeypatch):
    text = "spans and slots " * 8
    console.note(text)
    assert capsys.readouterr().err.splitlines() == [text]
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "dumb")  # 80 columns without colours
    console.note(text)
    lines = capsys.readouterr().err.splitlines()
    assert " ".join(line.strip() for line in lines) == text.strip()
    assert [len(line) <= 80 for line in lines] == [True, True]


def test_figures_are_lined_up_and_not_folded(capsys):
    console.print_figures({"a": "x " * 60, "longer": "one\nline"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a       x x")
    assert lines[1] == "longer  one\ufffdline"


def test_time_left_is_said_where_there_is_no_terminal(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 40.0, 50.0, 80.0, 120.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with console.progress("Measuring") as show:
        for done in (5, 25, 30, 50, 100):
            show(done, 100)
    assert capsys.readouterr().err.splitlines() == [
        "Measuring: 25%, 0.625/s, about 2 min 0 s left",
        "Measuring: 50%, 0.625/s, about 1 min 20 s left",
    ]
