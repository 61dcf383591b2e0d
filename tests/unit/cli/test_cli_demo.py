"""`icae demo`: its figures, its marks, its pictures, on a tiny engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.conftest import TEXT

from icae.cli.demo import OWN_TEXT, marked_differences
from icae.data.documents import read_document
from icae.memory import Memory


@pytest.mark.slow
def test_demo_shows_what_it_measured_and_leaves_memory_and_pictures(
    icae: Any, loaded: list[dict[str, Any]], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    document = tmp_path / "note.txt"
    document.write_text(TEXT, encoding="utf-8")
    asked = ["demo", document, "--question", "Who?", "--seed", "3", "-o", tmp_path / "out"]

    shown = icae(*asked)
    told = json.loads(icae(*asked, "--json").stdout)

    assert shown.exit_code == 0, shown.output
    assert "--seed 3" in shown.stdout
    assert "Who?" in shown.stdout
    assert "icae compress report.pdf" in shown.stdout
    memory = Memory.load(tmp_path / "out" / "note.icae")
    assert (told["tokens"], told["slots"]) == (memory.tokens, memory.positions)
    assert told["written_back"]["original"] == memory.span_source(told["written_back"]["span"])
    assert told["answers"][0]["memory"]["positions"] < told["answers"][0]["full_text"]["positions"]
    assert (tmp_path / "out" / "note.png").read_bytes().startswith(b"\x89PNG")
    assert "The quick brown" in (tmp_path / "out" / "note.html").read_text(encoding="utf-8")


def test_demo_of_a_file_that_is_not_there_says_so(icae: Any, no_model: None) -> None:
    assert icae("demo", "nowhere.txt").exit_code == 1


def test_differences_are_marked_word_by_word() -> None:
    marked = marked_differences("The key hangs on a nail.", "The key lies on a nail behind it.")
    assert marked.plain == "The key [-hangs-] {+lies+} on a [-nail.-] {+nail behind it.+} "


def test_the_text_in_the_package_is_one_that_people_read() -> None:
    assert 400 < len(read_document(str(OWN_TEXT)).text.split()) < 700
