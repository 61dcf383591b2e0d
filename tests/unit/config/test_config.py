from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from icae.config import ModelConfig, ObjectiveConfig, OptimConfig, Recipe, load_recipe
from icae.config.data import DataConfig, RatioStage, TripletFile
from icae.config.parsing import from_dict, parse_yaml, to_dict
from icae.errors import ConfigError

RECIPES = Path(__file__).parents[3] / "recipes"


def refused(raw: Any, cls: type = Recipe) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        from_dict(cls, raw, where="r.yaml")
    return caught.value


def test_an_unknown_key_or_a_missing_one_is_refused_by_name() -> None:
    error = refused({"name": "a", "lamda": 0.5})

    assert error.got == "lamda"
    assert "unknown key" in error.message
    assert "objective" in str(error.expected)
    assert "missing" in refused({"base": "x"}).message
    assert refused({"base": "x"}).expected == "name"


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"name": 3}, "name"),
        ({"name": "a", "model": {"span_length": "512"}}, "model: span_length"),
        ({"name": "a", "model": {"span_length": 512.0}}, "model: span_length"),
        ({"name": "a", "model": {"span_length": True}}, "model: span_length"),
        ({"name": "a", "model": {"lora_alpha": "32"}}, "model: lora_alpha"),
        ({"name": "a", "model": {"lora_alpha": False}}, "model: lora_alpha"),
        ({"name": "a", "model": {"lora_alpha": 10**400}}, "model: lora_alpha"),
        ({"name": "a", "model": {"layout": "uniformly"}}, "model: layout"),
        ({"name": "a", "model": None}, "model"),
        ({"name": "a", "run": {"dtype": "float16"}}, "run: dtype"),
        ({"name": "a", "run": {"gradient_checkpointing": 1}}, "run: gradient_checkpointing"),
        ({"name": "a", "init_adapter": 4}, "init_adapter"),
        ({"name": "a", "data": {"triplets": "one.jsonl"}}, "data: triplets"),
        ({"name": "a", "data": {"triplets": ["a", 2]}}, r"data: triplets[1]"),
        ({"name": "a", "data": {"context_lengths": [512]}}, "data: context_lengths"),
        ({"name": "a", "data": {"context_lengths": {"long": 1}}}, "data: context_lengths"),
        ({"name": "a", "data": {"ratio_curriculum": [{"until": "x"}]}}, "ratio_curriculum[0]"),
    ],
)
def test_a_wrong_type_is_refused_with_the_key(raw: dict[str, Any], key: str) -> None:
    error = refused(raw)

    assert error.message.startswith("r.yaml: ")
    assert key in error.message


def test_an_error_names_the_whole_way_to_its_key() -> None:
    error = refused({"name": "a", "objective": {"ae_weight": 1.5}})
    assert error.message == "r.yaml: objective: objective.ae_weight is out of range."
    assert (error.got, error.expected) == ("1.5", "0..1")

    stages = [{"until": 0.5}, {"until": 1.0, "ratio": {4: 1}}]
    error = refused({"name": "a", "data": {"ratio_curriculum": stages}})
    assert error.message == "r.yaml: data: ratio_curriculum[1]: unknown key."
    assert error.got == "ratio"


def test_json_turns_mapping_keys_into_text_and_back() -> None:
    data = DataConfig(
        context_lengths={128: 1.0, 512: 2.0},
        ratio_curriculum=(RatioStage(ratios={1.5: 1.0, 4.0: 2.0}),),
    )
    again = from_dict(DataConfig, json.loads(json.dumps(to_dict(data))), where="x")

    assert again == data
    assert all(type(key) is int for key in again.context_lengths)


def test_a_recipe_file_that_is_missing_or_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read"):
        load_recipe(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: [unclosed")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_recipe(bad)


def test_a_key_that_is_given_twice_is_refused_at_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    for text, key in (("name: a\nname: b\n", "name"), ("run: {output: a, output: b}\n", "output")):
        path.write_text(text)
        with pytest.raises(ConfigError, match="a key is given twice") as caught:
            load_recipe(path)
        assert key in str(caught.value.got)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5E-4", 0.0005),
        ("-.5e+1", -5),
        ("1e4", 10_000),
        ("2.5e-3", 0.0025),
        ("'1e-3'", "1e-3"),
        ("a1e-3", "a1e-3"),
    ],
)
def test_numbers_with_an_exponent_are_numbers(text: str, value: object) -> None:
    found = parse_yaml(f"key: {text}", where="it")["key"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("section", "neutral", "used"),
    [
        ("model", {"reading": "memory-tokens", "residual_scale": 0.5}, {"residual_decay": 0.25}),
        ("model", {"residual_decay": 1.0}, {"slot_head": "gain"}),
        ("objective", {"kl_share": 0, "ae_weight_end": None}, {"ft_kl_share": 0.5}),
        ("optim", {"weight_decay": 0.0, "final_lr_share": 0.1}, {"weight_decay": 0.01}),
    ],
)
def test_a_removed_setting_is_read_where_it_changes_nothing(
    section: str, neutral: dict[str, Any], used: dict[str, Any]
) -> None:
    assert from_dict(Recipe, {"name": "a", section: neutral}, where="r") == Recipe(name="a")

    error = refused({"name": "a", section: used})
    assert "this setting is no more" in error.message
    assert next(iter(used)) in str(error.got)
    assert "0031da2" in str(error.fix)


@pytest.mark.parametrize(
    "path",
    sorted(path for path in RECIPES.glob("*.yaml") if not path.name.startswith("data-")),
    ids=lambda path: path.stem,
)
def test_every_recipe_loads_survives_a_round_trip_and_names_the_files_it_needs(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name
    assert recipe.description
    again = yaml.safe_load(yaml.safe_dump(to_dict(recipe)))
    assert from_dict(Recipe, again, where="round trip") == recipe
    assert recipe.data.shards or recipe.objective.ft_share == 1
    if recipe.objective.ft_share > 0:
        assert recipe.data.triplets
        assert (recipe.init_adapter is None) == (recipe.objective.reader == "full-context")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ModelConfig(span_length=0),
        lambda: ModelConfig(lora_rank=0),
        lambda: ModelConfig(lora_alpha=0.0),
        lambda: ModelConfig(max_slots=0),
        lambda: RatioStage(until=0.0),
        lambda: RatioStage(until=1.1),
        lambda: RatioStage(ratios={}),
        lambda: RatioStage(ratios={0.5: 1.0}),
        lambda: RatioStage(ratios={4.0: 0.0}),
        lambda: DataConfig(context_lengths={}),
        lambda: DataConfig(context_lengths={1: 1.0}),
        lambda: DataConfig(context_lengths={64: -1.0}),
        lambda: DataConfig(continuation_length=0),
        lambda: DataConfig(triplets_per_context=0),
        lambda: TripletFile(path="a", cap=0),
        lambda: TripletFile(path="a", weight=0.0),
        lambda: DataConfig(ratio_curriculum=()),
        lambda: DataConfig(ratio_curriculum=(RatioStage(until=0.5),)),
        lambda: DataConfig(ratio_curriculum=(RatioStage(), RatioStage(until=0.5))),
        lambda: ObjectiveConfig(ae_weight=-0.1),
        lambda: ObjectiveConfig(ft_share=1.1),
        lambda: OptimConfig(steps=0),
        lambda: OptimConfig(batch_size=8, micro_batch_size=3),
        lambda: OptimConfig(batch_size=8, micro_batch_size=16),
        lambda: OptimConfig(learning_rate=0.0),
        lambda: OptimConfig(warmup_steps=-1),
        lambda: OptimConfig(clip_norm=0.0),
    ],
)
def test_values_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()

    assert caught.value.expected
