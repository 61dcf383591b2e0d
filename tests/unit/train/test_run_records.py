from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from icae.errors import MissingDependencyError
from icae.train.records import Records, plot_losses, read_records


def write(folder: Path, steps: int) -> Path:
    records = Records(folder, step=0)
    for step in range(1, steps + 1):
        records.add("train", step, {"ae_loss": 5.0 / step, "ae_accuracy": 0.1 * step})
    records.add("eval", steps, {"ae_loss": 1.0, "ae_accuracy": 0.5, "ae_accuracy_4x": 0.5})
    records.close()
    return folder / "metrics.jsonl"


def test_records_after_the_resume_step_are_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, 5)
    Records(tmp_path, step=3).close()
    assert [r["step"] for r in read_records(path)] == [1, 2, 3]


def test_a_cut_last_line_is_left_out_and_writing_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path, 3)
    path.write_bytes(path.read_bytes()[:-20])
    assert [r["step"] for r in read_records(path)] == [1, 2, 3]
    records = Records(tmp_path, step=3)
    records.add("train", 4, {"ae_loss": 1.0})
    records.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


def test_tensorboard_files_hold_the_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 3)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    points = [(e.step, e.value) for e in board.Scalars("train/ae_loss")]
    assert points == [(1, 5.0), (2, 2.5), (3, pytest.approx(5 / 3))]


def test_plot_is_a_png(tmp_path: Path) -> None:
    target = plot_losses(write(tmp_path, 4), tmp_path / "loss.png")
    assert target.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert target.stat().st_size > 5000


def test_missing_tensorboard_names_the_train_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingDependencyError, match="Training needs tensorboard"):
        Records(tmp_path, step=0)
