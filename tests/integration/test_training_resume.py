"""Runs in processes of their own that are killed, interrupted, resumed or spread over two."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from icae.config import load_recipe
from icae.data.shards import ShardWriter
from icae.model.base_files import tokenizer_hash
from icae.train import train
from icae.train.checkpoint import newest_checkpoint
from icae.train.records import read_records

pytestmark = pytest.mark.slow

STEPS = 150
ONE_MACHINE = Path(__file__).parents[2] / "recipes" / "accelerate" / "one-machine.yaml"
SCRIPT = """
import sys
from pathlib import Path
from accelerate import PartialState
from icae.config import load_recipe
from icae.train import train

if __name__ == "__main__":
    for path in sys.argv[1:]:
        recipe = load_recipe(path)
        train(recipe, stage="pretrain")
        state = PartialState()
        rank = Path(recipe.run.output) / f"rank-{state.process_index}-of-{state.num_processes}"
        rank.touch()
"""
ADAPTER_FILES = ("lora/adapter_model.safetensors", "icae.safetensors")


@pytest.fixture(scope="module")
def materials(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, random_ids: Callable[..., Any]
) -> Path:
    """A folder with ``shards`` and ``train.py``."""
    folder = tmp_path_factory.mktemp("materials")
    with ShardWriter(
        folder / "shards", vocab_size=256, tokenizer_hash=tokenizer_hash(tokenizer)
    ) as writer:
        for length in (40, 90, 60):
            writer.add(random_ids(length), source="made up")
    (folder / "train.py").write_text(SCRIPT, encoding="utf-8")
    return folder


@pytest.fixture
def write_recipe(materials: Path, base: Path, tmp_path: Path) -> Callable[..., Path]:
    """``write_recipe(name, steps=..., **run)``: a recipe file whose run goes to tmp_path/name."""

    def write(name: str, *, steps: int = STEPS, **run: Any) -> Path:
        recipe = {
            "name": "tiny",
            "base": str(base),
            "model": {"span_length": 16, "lora_rank": 4, "lora_alpha": 4.0},
            "data": {
                "shards": str(materials / "shards"),
                "eval_shards": str(materials / "shards"),
                "context_lengths": {16: 1.0, 24: 1.0},
                "continuation_length": 4,
                "ratio_curriculum": [
                    {"until": 0.5, "ratios": {1: 1.0, 2: 1.0}},
                    {"until": 1.0, "ratios": {4: 1.0}},
                ],
            },
            "optim": {
                "steps": steps,
                "batch_size": 4,
                "micro_batch_size": 2,
                "learning_rate": 1.0e-3,
                "warmup_steps": 5,
            },
            "run": {
                "output": str(tmp_path / name),
                "dtype": "float32",
                "log_every": 1,
                "eval_every": 50,
                "eval_samples": 2,
                **run,
            },
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return path

    return write


@pytest.fixture
def start(
    materials: Path, environment: dict[str, str]
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``start(*recipes)``: a process that trains them; those left at the end are killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*recipes: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(materials / "train.py"), *map(str, recipes)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Poll often; a process that ends first is a failure."""
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"the run ended too early:\n{process.communicate()[1]}")
        if time.monotonic() > deadline:
            pytest.fail("the run did not get far enough in two minutes")
        time.sleep(0.002)


def finish(process: subprocess.Popen[str]) -> None:
    errors = process.communicate(timeout=240)[1]
    assert process.returncode == 0, errors


def figures(folder: Path) -> list[dict[str, Any]]:
    """All records without what depends on the clock."""
    clock = ("seconds", "tokens_per_second")
    records = read_records(folder / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in clock} for r in records]


def test_killed_and_resumed_run_equals_an_uninterrupted_one_byte_for_byte(
    tmp_path: Path, write_recipe: Any, start: Any
) -> None:
    killed = write_recipe("killed", checkpoint_minutes=1e-9)
    whole = write_recipe("whole")
    checkpoints = tmp_path / "killed" / "checkpoints"
    process = start(killed)
    wait_until(lambda: len(list(checkpoints.glob("step-*.pt"))) == 2, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    newest = newest_checkpoint(checkpoints)
    assert newest is not None
    assert 2 <= int(newest.stem.removeprefix("step-")) < STEPS
    assert not (tmp_path / "killed" / "adapter").exists()
    finish(start(killed, whole))
    for name in ADAPTER_FILES:
        resumed = (tmp_path / "killed" / "adapter" / name).read_bytes()
        assert resumed == (tmp_path / "whole" / "adapter" / name).read_bytes(), name
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    assert len(figures(tmp_path / "whole")) == STEPS + STEPS // 50


def test_interrupt_saves_a_checkpoint_of_the_current_step(
    tmp_path: Path, write_recipe: Any, start: Any
) -> None:
    process = start(write_recipe("run", checkpoint_minutes=1000.0))
    wait_until(lambda: len(read_records(tmp_path / "run" / "metrics.jsonl")) >= 3, process)
    assert newest_checkpoint(tmp_path / "run" / "checkpoints") is None
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
    newest = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    last = [r for r in figures(tmp_path / "run") if r["kind"] == "train"][-1]
    assert torch.load(newest, weights_only=True)["step"] == last["step"] < STEPS


def training_figures(folder: Path) -> list[dict[str, float]]:
    """Step, losses, accuracies, gradient norm and rate of every update."""
    return [record for record in figures(folder) if record.pop("kind") == "train"]


def launch_two(materials: Path, environment: dict[str, str], *recipes: Path) -> None:
    """Train recipes one after the other with the launch command of recipes/accelerate."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *("--config_file", str(ONE_MACHINE), "--num_processes", "2"),
            *("--main_process_port", str(port)),
            str(materials / "train.py"),
            *map(str, recipes),
        ],
        env=environment,
        check=True,
        timeout=840,
    )


def start_from(folder: Path, other: Path, *, step: int) -> None:
    """Give a run the checkpoint that another one wrote at a step."""
    (folder / "checkpoints").mkdir(parents=True)
    name = f"step-{step:08d}.pt"
    shutil.copy(other / "checkpoints" / name, folder / "checkpoints" / name)


@pytest.mark.timeout(900)  # starts processes; slow on a busy machine
def test_one_process_and_two_train_alike_and_take_over_from_each_other(
    tmp_path: Path, materials: Path, environment: dict[str, str], write_recipe: Any
) -> None:
    """Each of two takes half of the same global batch; only the order of sums differs.

    So it does where each of two holds half of the frozen weights (FSDP2).
    """
    steps, names = 6, ("one", "two", "one-then-two", "two-then-one")
    settings = {"eval_every": 0, "checkpoint_minutes": 1e-9, "keep_checkpoints": steps}
    recipes = {name: write_recipe(name, steps=steps, **settings) for name in names}
    sharded = write_recipe("sharded", steps=steps, sharing="frozen-shards", **settings)
    train(load_recipe(recipes["one"]), stage="pretrain")
    start_from(tmp_path / "one-then-two", tmp_path / "one", step=3)
    launch_two(materials, environment, recipes["two"], recipes["one-then-two"], sharded)
    start_from(tmp_path / "two-then-one", tmp_path / "two", step=3)
    train(load_recipe(recipes["two-then-one"]), stage="pretrain")

    ranks = sorted(p.name for p in (tmp_path / "two").glob("rank-*"))
    assert ranks == ["rank-0-of-2", "rank-1-of-2"]
    alone = training_figures(tmp_path / "one")
    assert [r["step"] for r in alone] == [1, 2, 3, 4, 5, 6]
    for name, first in (("two", 0), ("one-then-two", 3), ("two-then-one", 3), ("sharded", 0)):
        own = training_figures(tmp_path / name)
        assert len(own) == steps - first, name
        for record, expected in zip(own, alone[first:], strict=True):
            assert record == pytest.approx(expected, rel=1e-4), name
        for file in ADAPTER_FILES:
            weights = load_file(tmp_path / name / "adapter" / file)
            for key, weight in load_file(tmp_path / "one" / "adapter" / file).items():
                torch.testing.assert_close(weights[key], weight, rtol=1e-4, atol=1e-5)
