from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from icae.errors import MissingDependencyError
from icae.train.records import Records, plot_losses, read_records


@pytest.fixture
def recipe(tiny: Any, tmp_path: Path) -> Any:
    return tiny.recipe(run={"output": str(tmp_path)}, optim={"steps": 9})


@pytest.fixture
def path(recipe: Any, tmp_path: Path) -> Path:
    """The metrics of five steps and an evaluation."""
    records = Records(recipe, step=0)
    speed = {"tokens_per_second": 10.0, "seconds": 60.0}
    for step in range(1, 6):
        records.add("train", step, {"ae_loss": 5.0 / step, "ae_accuracy": 0.1 * step, **speed})
    records.add("eval", 5, {"ae_loss": 1.0, "ae_accuracy": 0.5, "ae_accuracy_4x": 0.5})
    records.close()
    return tmp_path / "metrics.jsonl"


def test_a_line_is_told_for_each_record_of_training(capsys: Any, path: Path) -> None:
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 5
    assert told[4] == "step 5/9  ae_loss 1.000  ae_accuracy 0.500  10 tok/s  ~1 min left"


def test_records_after_the_resume_step_and_a_cut_line_are_dropped(path: Path, recipe: Any) -> None:
    path.write_bytes(path.read_bytes()[:-20])
    assert [r["step"] for r in read_records(path)] == [1, 2, 3, 4, 5]
    records = Records(recipe, step=3)
    records.add("eval", 4, {"ae_loss": 1.0})
    records.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


def test_tensorboard_files_hold_the_figures(path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(path.with_name("tensorboard")))
    board.Reload()
    points = [(e.step, e.value) for e in board.Scalars("train/ae_loss")]
    assert points[:3] == [(1, 5.0), (2, 2.5), (3, pytest.approx(5 / 3))]


def test_plot_is_a_png(path: Path, tmp_path: Path) -> None:
    target = plot_losses(path, tmp_path / "loss.png")
    assert target.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert target.stat().st_size > 5000


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_refused_with_the_command(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    recipe = tiny.recipe(run={"output": str(tmp_path), "log_with": name})
    with pytest.raises(MissingDependencyError, match=f"run.log_with {name} needs") as refused:
        Records(recipe, step=0)
    assert f"pip install {name}" in str(refused.value.fix)


def test_missing_tensorboard_names_the_train_extra(
    recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingDependencyError, match="Training needs tensorboard"):
        Records(recipe, step=0)
