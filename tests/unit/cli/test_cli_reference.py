from __future__ import annotations

from pathlib import Path

import pytest

from icae.cli import reference as reference_module
from icae.cli.reference import WIDTH, reference

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_page_in_the_docs_is_what_the_help_says():
    written = PAGE.read_text(encoding="utf-8")
    assert written == reference(), f"run: python -m {reference_module.__name__} > docs/cli.md"


@pytest.mark.parametrize(("columns", "term"), [("30", "dumb"), ("300", "xterm-256color")])
def test_page_does_not_depend_on_the_terminal(monkeypatch, columns, term):
    expected = reference()
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert reference() == expected
    assert "\x1b" not in expected
    assert max(len(line) for line in expected.splitlines()) <= WIDTH
