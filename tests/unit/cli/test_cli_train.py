"""`icae pretrain` and `icae finetune`, and settings of a recipe on the command line."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from icae import train as training
from icae.cli.train import read_recipe
from icae.config import ModelConfig, Recipe, load_recipe
from icae.config.parsing import from_dict, to_dict
from icae.errors import AdapterError, ConfigError, MissingDependencyError
from icae.model.adapter_files import read_info

RESULT = training.TrainResult(
    adapter=Path("runs/tiny/adapter"),
    plot=Path("runs/tiny/loss.png"),
    steps=2,
    seconds=3.5,
    metrics={"ae_loss": math.nan, "lm": 2.0},
)


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    recipe = to_dict(from_dict(Recipe, {"name": "tiny"}, where="test"))
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.fixture
def trained(monkeypatch):
    """What was trained."""
    calls: list[dict[str, Any]] = []

    def train(recipe: Any, **options: Any) -> training.TrainResult:
        logging.getLogger("icae.train").info("step 1 of 2")
        calls.append({"recipe": recipe, **options})
        return RESULT

    monkeypatch.setattr(training, "train", train)
    return calls


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_stage_is_that_of_the_command(icae, payload, trained, recipe_file, stage):
    result = icae(stage, recipe_file)
    assert result.exit_code == 0, result.output
    assert (trained[0]["stage"], trained[0]["dry_run_steps"]) == (stage, None)
    assert "runs/tiny/adapter" in result.stdout
    assert result.stderr == "step 1 of 2\n"
    assert payload(stage, recipe_file) == {
        "stage": stage,
        "recipe": "tiny",
        "adapter": "runs/tiny/adapter",
        "steps": 2,
        "seconds": 3.5,
        "metrics": {"ae_loss": None, "lm": 2.0},
    }


def test_options_change_the_recipe(icae, trained, recipe_file, tmp_path):
    options = ("--dry-run", 2, "--output", tmp_path, "--set", "optim.steps=9", "--set", "base=b")
    assert icae("pretrain", recipe_file, *options).exit_code == 0
    recipe = trained[0]["recipe"]
    assert (recipe.optim.steps, recipe.base, recipe.run.output) == (9, "b", str(tmp_path))
    assert trained[0]["dry_run_steps"] == 2


def test_what_is_wrong_is_refused_before_training(error, usage, trained, recipe_file):
    assert error("pretrain", recipe_file, "--set", "optim.stops=1")["type"] == "ConfigError"
    assert "--dry-run" in usage("pretrain", recipe_file, "--dry-run", 0)
    assert trained == []


def test_missing_training_packages_are_reported(error, recipe_file, monkeypatch):
    def train(recipe: Any, **options: Any) -> None:
        raise MissingDependencyError("No accelerate.", fix="pip install 'icae[train]'")

    monkeypatch.setattr(training, "train", train)
    assert "icae[train]" in error("pretrain", recipe_file)["fix"]


def test_of_several_processes_only_the_first_tells_the_result(icae, recipe_file, monkeypatch):
    second = training.TrainResult(
        adapter=RESULT.adapter, plot=RESULT.plot, steps=2, seconds=3.5, metrics={}, process=1
    )
    monkeypatch.setattr(training, "train", lambda recipe, **options: second)
    result = icae("pretrain", recipe_file, "--json")
    assert (result.exit_code, result.stdout) == (0, "")


def test_recipe_without_settings_is_the_recipe(recipe_file):
    assert read_recipe(recipe_file) == load_recipe(recipe_file)


def test_what_a_recipe_leaves_out_of_the_model_is_its_adapter_s(saved_adapter, tmp_path):
    path = tmp_path / "short.yaml"
    path.write_text(f"name: short\ninit_adapter: {saved_adapter}\n", encoding="utf-8")
    own = read_info(saved_adapter).model
    assert own != ModelConfig()
    assert read_recipe(path).model == own
    changed = read_recipe(path, settings=["model.lora_alpha=3"]).model
    assert changed == replace(own, lora_alpha=3.0)
    fresh = read_recipe(path, settings=["init_adapter=untrained"])
    assert fresh.model == ModelConfig()
    assert read_recipe(path, settings=["init_adapter=null"]).model == ModelConfig()
    with pytest.raises(AdapterError):
        read_recipe(path, settings=["init_adapter=nowhere"])


@pytest.mark.parametrize(
    ("setting", "read", "value"),
    [
        ("optim.steps=7", lambda r: r.optim.steps, 7),
        ("optim.steps=1e3", lambda r: r.optim.steps, 1000),
        ("optim.learning_rate=3e-4", lambda r: r.optim.learning_rate, 3e-4),
        ("name=a=b", lambda r: r.name, "a=b"),
        ("init_adapter=null", lambda r: r.init_adapter, None),
        ("data.context_lengths={64: 1.0}", lambda r: r.data.context_lengths, {64: 1.0}),
        ("data.context_lengths.64=2", lambda r: r.data.context_lengths, {512: 1.0, 64: 2.0}),
        (
            "data.ratio_curriculum.0.ratios={2: 1}",
            lambda r: r.data.ratio_curriculum[0].ratios,
            {2.0: 1.0},
        ),
        ("data.triplets=[a.jsonl]", lambda r: r.data.triplets[0].path, "a.jsonl"),
    ],
)
def test_setting_takes_effect(recipe_file, setting, read, value):
    assert read(read_recipe(recipe_file, settings=[setting])) == value


def test_settings_can_complete_a_recipe_and_later_ones_win(tmp_path):
    path = tmp_path / "part.yaml"
    path.write_text("optim:\nrun: {log_every: 3}\n", encoding="utf-8")
    settings = ["name=x", "optim.steps=4", "optim.steps=5"]
    recipe = read_recipe(path, settings=settings, output=tmp_path / "run")
    assert (recipe.name, recipe.optim.steps) == ("x", 5)
    assert (recipe.run.log_every, recipe.run.output) == (3, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.step=7", "unknown key"),
        ("optim.steps=many", "wrong type"),
        ("optim.steps=0", "optim.steps is out of range"),
        ("optim.steps", "cannot be read"),
        ("optim..steps=1", "cannot be read"),
        ("=1", "cannot be read"),
        ("optim.steps=[1", "is not valid YAML"),
        ("name.first=x", "no such place"),
        ("data.ratio_curriculum.5.until=1", "no such place"),
    ],
)
def test_wrong_setting_is_refused(recipe_file, setting, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(recipe_file, settings=[setting])


@pytest.mark.parametrize("content", ["- a\n- b\n", "", "just text", "a: [1"])
def test_recipe_that_is_no_mapping_is_refused(tmp_path, content):
    path = tmp_path / "odd.yaml"
    path.write_text(content, encoding="utf-8")
    for settings in ([], ["name=x"]):
        with pytest.raises(ConfigError):
            read_recipe(path, settings=settings)
