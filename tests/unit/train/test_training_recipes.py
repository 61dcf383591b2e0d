from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from icae.config import load_recipe
from icae.config.parsing import from_dict, to_dict

FOLDER = Path(__file__).parents[3] / "recipes"
RECIPES = sorted(p for p in FOLDER.glob("*.yaml") if not p.name.startswith("data-"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_loads_and_survives_a_round_trip(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name
    assert recipe.description
    again = yaml.safe_load(yaml.safe_dump(to_dict(recipe)))
    assert from_dict(type(recipe), again, where="round trip") == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_recipe_names_the_files_it_needs(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.data.shards or recipe.objective.ft_share == 1
    if recipe.objective.ft_share > 0:
        assert recipe.data.triplets
        assert (recipe.init_adapter is None) == (recipe.objective.reader == "full-context")
