from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from icae.data.triplets.service import ChatService
from icae.errors import InputError, MissingDependencyError, ResultConflictError
from icae.evals import Qa, Reconstruction, Slots
from icae.evals.suite import Suite
from llm_stub import Act, llm_stub

GRID: dict[str, Any] = {"lengths": (16,), "ratios": (4.0,), "samples": 2}


def scaled(kind: Any, **settings: Any) -> Any:
    """An experiment whose quick settings are these."""
    return type(kind.__name__, (kind,), {"quick": settings})


class Broken(Slots):
    """An experiment whose package is missing."""

    name = "broken"
    question = "What of <broken>?"

    def prepare(self, engine: Any, inputs: Any) -> Any:
        raise MissingDependencyError("Needs | x.", got="it is not installed", fix="pip install x")


SMALL = (
    scaled(Reconstruction, **GRID, greedy=1),
    scaled(Slots, **GRID, examples=1),
    Broken,
    Qa,
)


@pytest.fixture
def suite(engine: Any, corpus: Path, tmp_path: Path, quick: None) -> Any:
    """``suite(entries, **run)``: the report of some experiments on the tiny engine."""

    def call(entries: Any = SMALL, **options: Any) -> Any:
        run = Suite(
            texts=(corpus,),
            questions=(),
            scale="quick",
            experiments=tuple(entries),
            folder=tmp_path / "report",
            command="icae eval all",
            **options,
        )
        return run.run(engine)

    return call


def test_pages_and_json_hold_every_result_and_every_reason(suite: Any, tmp_path: Path) -> None:
    finished = suite()
    assert [path.name for path in finished.files] == ["report.html", "report.md", "report.json"]
    page, text, data = (path.read_text() for path in finished.files)
    assert page.count("data:image/png;base64,") == 3
    opening = page.index("How much of a text comes back?")
    assert opening < page.index("Every experiment") < page.index('<h2 id="reconstruction">')
    assert (tmp_path / "report" / "reconstruction-by-ratio.png").exists()
    assert "src=" not in page.replace('src="data:', "")
    assert "<script" not in page
    assert '<h2 id="slots">' in page
    assert "What of &lt;broken&gt;?" in page
    assert "Skipped: Needs | x; got it is not installed; pip install x." in page
    assert "Skipped: No questions were given." in page
    assert re.search(r"\| broken +\| What of <broken>\? +\| skipped: Needs \\\| x; got it is", text)
    assert "\n## Reconstruction of held-out text from its slots\n" in text
    assert "![Which slot holds what](slots.png)" in text
    assert "![How much of a text comes back?](reconstruction-by-ratio.png)" in text
    assert text.count("\n# ") == 0
    assert text.startswith("# Evaluation of tiny\n")
    stored = json.loads(data)
    assert stored == json.loads(json.dumps(finished.payload))
    for key in ("schema", "commit", "adapter", "base", "data", "hardware", "seed", "command"):
        assert key in stored
    first, slots, broken, qa, *judged = stored["parts"]
    assert [part["reason"] for part in judged] == [
        "No judge was given; Give --judge-url and --judge-model"
    ] * 2
    assert first["status"] == slots["status"] == "done"
    assert first["settings"] == {"samples": 2, "greedy": 1, "window": 16}
    assert first["tables"][0]["rows"][0]["kind"] == "none"
    assert "per_context" not in first["tables"][0]["rows"][0]
    assert len(first["sha256"]) == 64
    assert broken == {
        "name": "broken",
        "question": "What of <broken>?",
        "status": "skipped",
        "reason": "Needs | x; got it is not installed; pip install x",
    }
    assert qa["reason"] == "No questions were given"


def test_an_equal_run_measures_nothing_again(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = suite()

    def measured(*args: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr("icae.evals.reconstruction.Reconstruction.measure", measured)
    again = suite()
    tables = [part.get("tables") for part in again.payload["parts"]]
    assert tables == [part.get("tables") for part in first.payload["parts"]]


def test_results_of_other_settings_stop_the_run_instead_of_being_skipped(suite: Any) -> None:
    suite(SMALL[:1])
    other = scaled(Reconstruction, **{**GRID, "samples": 3}, greedy=1)
    with pytest.raises(ResultConflictError, match="another run"):
        suite((other,))
    finished = suite((other,), replace=True)
    assert finished.payload["parts"][0]["settings"]["samples"] == 3


def test_only_what_was_asked_for_is_run(suite: Any) -> None:
    finished = suite(only=("slots",))
    assert [part["name"] for part in finished.payload["parts"]] == ["slots"]
    with pytest.raises(InputError, match="no such experiment") as caught:
        suite(only=("slot",))
    assert "slots" in str(caught.value.expected)


def test_answers_of_the_suite_are_judged_in_both_orders(suite: Any, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    (tmp_path / "report").mkdir()
    single = {"group": [0], "prompt": ["p"], "reference": ["r"], "answer": ["a"]}
    rows = [
        {"dataset": "d", "kind": kind, "ratio": ratio, "per_question": single}
        for kind, ratio in (("memory", 4.0), ("own summary", 4.0), ("full context", None))
    ]
    stored = {"experiment": "qa", "rows": rows}
    (tmp_path / "report" / "qa.json").write_text(json.dumps(stored))
    with llm_stub(lambda n: Act(content="VERDICT: TIE")) as service:
        judge = ChatService(url=service.url, model="m", api_key="secret", timeout=5.0, attempts=1)
        parts = suite((), judge=judge).payload["parts"]
    assert [part["name"] for part in parts] == ["judge", "judge-summary"]
    for part in parts:
        assert part["status"] == "done"
        assert part["tables"][0]["rows"][0]["tie"]["value"] == 1.0
    assert "secret" not in (tmp_path / "report" / "report.json").read_text()
