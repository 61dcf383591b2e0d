"""What the processes of one launch agree on; that they train alike is an integration test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from icae.errors import TrainingError
from icae.train.checkpoint import newest_checkpoint
from icae.train.from_recipe import training_device
from icae.train.trainer import Trainer

LAUNCHES = sorted((Path(__file__).parents[3] / "recipes" / "accelerate").glob("*.yaml"))


@pytest.fixture
def build_trainer(tiny: Any) -> Any:
    """``build_trainer(**recipe)``: a trainer on one sample."""
    return lambda **settings: Trainer(
        tiny.recipe(**settings), tiny.model(), tiny.source([tiny.sample()])
    )


def test_signal_that_another_process_saw_stops_this_one_with_a_checkpoint(
    tiny: Any, build_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build_trainer()
    monkeypatch.setattr(accelerate.Accelerator, "num_processes", 2)
    monkeypatch.setattr(
        accelerate.Accelerator, "reduce", lambda self, own, reduction: own + 1, raising=True
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert newest_checkpoint(Path(tiny.recipe().run.output) / "checkpoints").stem[-1] == "1"


def test_processes_that_found_different_checkpoints_are_refused(
    build_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build_trainer()
    monkeypatch.setattr(accelerate.Accelerator, "gather", lambda self, own: torch.tensor([0, 40]))
    with pytest.raises(TrainingError, match="do not resume at the same step"):
        trainer.run()


@pytest.mark.parametrize(
    ("launch", "settings", "message"),
    [
        ({"num_processes": 3}, {"optim": {"micro_batch_size": 2}}, "more processes than samples"),
        ({"distributed_type": DistributedType.FSDP}, {}, "way of sharing"),
        ({}, {"run": {"sharing": "frozen-shards"}}, "no processes to share"),
    ],
)
def test_what_the_processes_of_a_launch_cannot_share_is_refused(
    build_trainer: Any, monkeypatch: pytest.MonkeyPatch, launch: Any, settings: Any, message: str
) -> None:
    for name, value in launch.items():
        monkeypatch.setattr(accelerate.Accelerator, name, value)
    with pytest.raises(TrainingError, match=message):
        build_trainer(**settings)


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = []
    for local in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", local)
        devices.append(str(training_device()))
    assert devices == ["cuda:0", "cuda:1"]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(TrainingError, match="more processes than GPUs"):
        training_device()


@pytest.mark.parametrize("path", LAUNCHES, ids=lambda path: path.stem)
def test_launch_file_is_read_by_accelerate(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert config.num_processes % config.num_machines == 0
    assert config.mixed_precision == "no"
    assert f"--config_file recipes/accelerate/{path.name}" in path.read_text(encoding="utf-8")
