from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from icae.cli.train import read_recipe
from icae.config import Recipe, load_recipe
from icae.config.data import TripletFile
from icae.config.parsing import from_dict, to_dict
from icae.errors import ConfigError


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    recipe = to_dict(from_dict(Recipe, {"name": "tiny"}, where="test"))
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def test_recipe_without_settings_is_the_recipe(recipe_file) -> None:
    assert read_recipe(recipe_file) == load_recipe(recipe_file)


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("optim.steps=7", lambda r: r.optim.steps == 7),
        ("optim.steps=1e3", lambda r: r.optim.steps == 1000),
        ("optim.learning_rate=3e-4", lambda r: r.optim.learning_rate == 3e-4),
        ("name=a=b", lambda r: r.name == "a=b"),
        ("init_adapter=null", lambda r: r.init_adapter is None),
        ("data.context_lengths={64: 1.0}", lambda r: r.data.context_lengths == {64: 1.0}),
        ("data.context_lengths.512=2", lambda r: r.data.context_lengths == {512: 2.0}),
        ("data.context_lengths.64=2", lambda r: r.data.context_lengths == {512: 1.0, 64: 2.0}),
        (
            "data.ratio_curriculum.0.ratios={2: 1}",
            lambda r: r.data.ratio_curriculum[0].ratios == {2.0: 1.0},
        ),
        ("data.triplets=[a.jsonl]", lambda r: r.data.triplets == (TripletFile(path="a.jsonl"),)),
    ],
)
def test_setting_takes_effect(recipe_file, setting, read) -> None:
    assert read(read_recipe(recipe_file, settings=[setting]))


def test_later_setting_wins(recipe_file) -> None:
    assert read_recipe(recipe_file, settings=["optim.seed=1", "optim.seed=2"]).optim.seed == 2


def test_settings_can_complete_a_recipe(tmp_path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text("optim:\nrun: {log_every: 3}\n", encoding="utf-8")
    recipe = read_recipe(path, settings=["name=x", "optim.steps=5"], output=tmp_path / "run")
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
        ("optim.steps=[1", "cannot be read"),
        ("name.first=x", "no such place"),
        ("data.ratio_curriculum.5.until=1", "no such place"),
    ],
)
def test_wrong_setting_is_refused(recipe_file, setting, message) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(recipe_file, settings=[setting])


@pytest.mark.parametrize("content", ["- a\n- b\n", "", "just text"])
def test_recipe_that_is_no_mapping_is_refused(tmp_path, content) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(content, encoding="utf-8")
    for settings in ([], ["name=x"]):
        with pytest.raises(ConfigError):
            read_recipe(path, settings=settings)


def test_unreadable_recipe_is_refused(tmp_path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [1", encoding="utf-8")
    for name in ("absent.yaml", "broken.yaml"):
        with pytest.raises(ConfigError, match=name):
            read_recipe(tmp_path / name)
