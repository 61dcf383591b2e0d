"""`icae eval` with SmolLM2-135M and the shipped adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from icae.cli.app import app

pytest.importorskip("sacrebleu")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.real_model


@pytest.fixture
def evaluate(document: Path) -> Callable[..., Any]:
    """``evaluate(name, *options)``: the JSON object of an evaluation on a document."""

    def run(name: str, *options: object) -> Any:
        command = ["eval", name, str(document), *map(str, options), "--json"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


def test_slots_hold_their_own_chunks_and_what_lacks_data_is_skipped(
    evaluate: Callable[..., Any], tmp_path: Path
) -> None:
    embeddings = ("--adapter", "smollm2-135m")  # single slots are changed: of embeddings alone
    made = evaluate("all", "--only", "slots,qa", "--out", tmp_path, *embeddings)
    qa, slots = made["parts"]
    (row,) = slots["tables"][0]["rows"]
    assert row["locality"]["low"] > 2 * row["chance"]
    assert row["own_drop"]["low"] > 5 * abs(row["other_drop"]["value"])
    assert qa["status"] == "skipped"
    assert "No questions were given" in qa["reason"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 1


def test_own_memory_beats_no_memory_and_that_of_another_text(
    evaluate: Callable[..., Any], tmp_path: Path
) -> None:
    grid = ("--lengths", 32, "--ratios", 2, "--samples", 8, "--greedy", 2)
    rows = {row["kind"]: row for row in evaluate("reconstruction", *grid, "-o", tmp_path)["rows"]}
    own, foreign, none = rows["own"], rows["of another text"], rows["none"]
    for other in (foreign, none):
        assert own["ae_loss"]["high"] < other["ae_loss"]["low"]
        assert own["accuracy"]["value"] > other["accuracy"]["value"] + 0.1
    assert own["bleu"]["value"] >= 0
    assert (tmp_path / "reconstruction.png").stat().st_size > 10_000
