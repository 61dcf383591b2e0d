"""Every base goes through the whole loop in both forms of memory, or says why it does not.

A few by default; all of them with ``ICAE_ALL_BASES=1`` (`make test-bases`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.bases.architectures import NAMES, NEEDED, tiny
from tests.bases.loop import loop
from tests.bases.report import HEADING, PAGE, row

CHOSEN = NAMES if os.environ.get("ICAE_ALL_BASES") == "1" else NEEDED


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
def test_a_base_goes_through_the_whole_loop_or_says_why_not(
    name: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))
    found = {}
    for form in ("embeddings", "key-values"):
        (tmp_path / form).mkdir()
        found[form] = loop(tiny(name), tokenizer, form, tmp_path / form)
    page = without_amounts(PAGE.read_text(encoding="utf-8"))
    own = without_amounts(row(name, found))
    assert own in page, "run: python -m tests.bases.report > docs/bases.md"


def without_amounts(text: str) -> str:
    """By how much a check fails differs a little between processors."""
    return re.sub(r"[\d.]+%", "%", text)


def test_the_page_has_a_row_for_every_base() -> None:
    page = PAGE.read_text(encoding="utf-8")
    tried = page.partition("## What was tried")[2]
    rows = [line for line in tried.splitlines() if line.startswith("| ")][1:]
    assert page.startswith(HEADING.partition("{")[0])
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == list(NAMES)
    passing = [line for line in rows if line.split(" | ")[1] == "yes"]
    assert len(rows) >= 60
    assert len(passing) >= 52
