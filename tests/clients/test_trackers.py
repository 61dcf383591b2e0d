"""Experiment trackers get the figures of a run, through the real library, without a network."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

import pytest

pytest.importorskip("wandb", reason="wandb is in `make test-clients` alone")


def test_wandb_gets_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    importlib.import_module("accelerate").PartialState(cpu=True)  # as the trainer does
    config = importlib.import_module("icae.config")
    run = config.RunConfig(output=str(tmp_path / "run"), log_with="wandb")
    recipe = config.Recipe(name="tracked", run=run)
    records = importlib.import_module("icae.train.records").Records(recipe, step=0)
    for step in (1, 2):
        records.add("train", step, {"ae_loss": 0.5, "tokens_per_second": 9.0, "seconds": 1.0})
    records.add("eval", 2, {"ae_accuracy": 0.25})
    records.close()
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    names = (b"tracked", b"train/ae_loss", b"eval/ae_accuracy", b"span_length")
    deadline = time.monotonic() + 60  # its service writes the file in a process of its own
    while not all(name in written.read_bytes() for name in names):
        assert time.monotonic() < deadline, written.read_bytes()[:1000]
        time.sleep(0.1)
