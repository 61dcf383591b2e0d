"""Questions about long documents: made by rule from their own numbers and headings."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

TEXT = """\
Motivation

The first release had 42 modules. It ran on Python 3.11 and took 17 seconds. Nothing else took 9.

Rationale '''''''''

https://example.org/77 is left out.

Another 42 came later. It was version 250 of the plan.

Rejected Ideas

None was kept.
"""


@pytest.fixture
def script(benchmark_script: Callable[[str], Any]) -> Any:
    return benchmark_script("long_documents")


def test_a_number_that_stands_once_is_asked_for_in_its_sentence(script: Any) -> None:
    asked = {answer: prompt for prompt, answer in script.gaps(TEXT)}
    assert set(asked) == {"17", "250"}
    assert '"It ran on Python 3.11 and took ____ seconds."' in asked["17"]


def test_headings_are_asked_for_by_the_one_before(script: Any) -> None:
    assert [answer for _, answer in script.headings(f"\n\n{TEXT}")] == [
        "Rationale",
        "Rejected Ideas",
    ]


def test_files_hold_questions_about_texts_of_their_length(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(place: str, rows: Iterable[dict[str, str]]) -> None:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with lzma.open(path, "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    filler = "Words follow words here. " * 12
    write(
        "pretrain/peps.jsonl.xz",
        ({"title": str(n), "text": f"{TEXT}\nMore of it\n\n{filler}"} for n in range(3)),
    )
    spans = [f"{name}: {filler}" for name in "ABCD"]
    write(
        "triplets/eval/qmsum_span_test.jsonl.xz",
        (
            {"context": span, "prompt": f"Who said {i}?", "answer": "one", "id": f"m{i % 2}"}
            for i, span in enumerate(spans)
        ),
    )
    write(
        "triplets/train/multilexsum.jsonl.xz",
        ({"context": f"{n} {filler}", "prompt": "Sum up.", "answer": "words"} for n in range(3)),
    )
    script.main([str(tmp_path), "--tokens", "160,5000", "-o", str(tmp_path / "out")])
    rows = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (tmp_path / "out").iterdir()
    }
    assert {name: len(own) for name, own in rows.items()} == {
        "peps-160": 6,
        "qmsum-160": 2,
    }
    assert "multilexsum-160: no texts of that length" in capsys.readouterr().out
    for row in rows["peps-160"]:
        assert len(row["context"]) <= 640
        assert row["answer"] in row["context"]
    for row in rows["qmsum-160"]:
        number = int(row["prompt"][9])
        assert row["context"] == "\n".join(spans[number % 2 :: 2])
