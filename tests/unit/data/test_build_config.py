from pathlib import Path

import pytest

from icae.data.build_config import BuildConfig, SourceConfig, load_build_config
from icae.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("data-*.yaml"))


def source(name="a", **options):
    return SourceConfig(**{"name": name, "paths": ("x.txt",), "weight": 1.0, **options})


def test_there_is_a_recipe():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_says_what_it_is_for(path):
    config = load_build_config(path)
    assert config.description
    assert config.contamination.against


def test_settings_of_the_file_are_read(tmp_path):
    (tmp_path / "b.yaml").write_text(
        "seed: 3\ntokens: 1000\nsources:\n  - {name: a, paths: [a.txt], weight: 2, repeat: 2}\n"
        "dedup: {threshold: 0.7}\ncleaning: {min_characters: 5}\ncontamination: {against: [e]}\n"
    )
    config = load_build_config(tmp_path / "b.yaml")
    assert config.sources == (SourceConfig(name="a", paths=("a.txt",), weight=2.0, repeat=2),)
    assert (config.seed, config.tokens, config.dedup.threshold) == (3, 1000, 0.7)
    assert (config.cleaning.min_characters, config.contamination.against) == (5, ("e",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: [{name: a, paths: [x], weight: 1, wieght: 2}]", "unknown key(.|\n)*wieght"),
        ("sources: [{name: a, paths: [x]}]", "missing(.|\n)*weight"),
        ("sources: [{name: a, paths: [x], weight: 1}]\nsede: 1", "unknown key(.|\n)*sede"),
        ("sources: []", "at least one source"),
        ("dedup: {threshold: 2}\nsources: [{name: a, paths: [x], weight: 1}]", "out of range"),
        ("seed: 1", "missing(.|\n)*sources"),
    ],
)
def test_wrong_file_is_refused(tmp_path, text, message):
    (tmp_path / "b.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError, match=message):
        load_build_config(tmp_path / "b.yaml")


@pytest.mark.parametrize("bad", [{"weight": 0}, {"repeat": 0}, {"paths": ()}, {"name": ""}])
def test_source_out_of_range_is_refused(bad):
    with pytest.raises(ConfigError, match="source is out of range"):
        source(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"sources": (source(), source())},
        {"sources": (source("evaluation"),)},
        {"tokens": 0},
        {"validation_share": 1.0},
        {"min_tokens": 0},
        {"chunk_characters": 0},
    ],
)
def test_build_out_of_range_is_refused(bad):
    with pytest.raises(ConfigError):
        BuildConfig(**{"sources": (source(),), **bad})
