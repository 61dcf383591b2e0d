from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from icae import train as training
from icae.errors import MissingDependencyError


@dataclass
class Result:
    adapter: Path = Path("runs/tiny/adapter")
    steps: int = 2
    seconds: float = 3.5
    metrics: dict[str, float] = field(default_factory=lambda: {"ae_loss": float("nan"), "lm": 2.0})
    process: int = 0


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: tiny\n", encoding="utf-8")
    return path


@pytest.fixture
def trained(monkeypatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []

    def run_training(recipe: Any, **options: Any) -> Result:
        logging.getLogger("icae.train").info("step 1 of 2")
        calls.append({"recipe": recipe, **options})
        return Result()

    monkeypatch.setattr(training, "train", run_training)
    return calls


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_stage_is_that_of_the_command(icae, trained, recipe_file, stage) -> None:
    result = icae(stage, recipe_file)
    assert result.exit_code == 0, result.output
    assert trained[0]["stage"] == stage
    assert trained[0]["dry_run_steps"] is None
    assert "runs/tiny/adapter" in result.stdout
    assert result.stderr == "step 1 of 2\n"


def test_options_change_the_recipe(icae, trained, recipe_file, tmp_path) -> None:
    options = ("--dry-run", 2, "--output", tmp_path, "--set", "optim.steps=9", "--set", "base=b")
    assert icae("pretrain", recipe_file, *options).exit_code == 0
    recipe = trained[0]["recipe"]
    assert (recipe.optim.steps, recipe.base, recipe.run.output) == (9, "b", str(tmp_path))
    assert trained[0]["dry_run_steps"] == 2


def test_json_holds_the_result(icae, trained, recipe_file) -> None:
    payload = json.loads(icae("finetune", recipe_file, "--json").stdout)
    assert payload == {
        "stage": "finetune",
        "recipe": "tiny",
        "adapter": "runs/tiny/adapter",
        "steps": 2,
        "seconds": 3.5,
        "metrics": {"ae_loss": None, "lm": 2.0},
    }


def test_wrong_setting_is_refused_before_training(icae, trained, recipe_file) -> None:
    result = icae("pretrain", recipe_file, "--set", "optim.stops=1", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "ConfigError"
    assert trained == []


def test_dry_run_of_no_steps_is_a_usage_error(icae, trained, recipe_file) -> None:
    assert icae("pretrain", recipe_file, "--dry-run", 0).exit_code == 2


def test_missing_training_packages_are_reported(icae, recipe_file, monkeypatch) -> None:
    def run_training(recipe: Any, **options: Any) -> Result:
        raise MissingDependencyError("No accelerate.", fix="pip install 'icae[train]'")

    monkeypatch.setattr(training, "train", run_training)
    result = icae("pretrain", recipe_file)
    assert result.exit_code == 1
    assert "pip install 'icae[train]'" in result.stderr


def test_of_several_processes_only_the_first_tells_the_result(
    icae, recipe_file, monkeypatch
) -> None:
    monkeypatch.setattr(training, "train", lambda recipe, **options: Result(process=1))
    result = icae("pretrain", recipe_file, "--json")
    assert (result.exit_code, result.stdout) == (0, "")
