from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.data.build_config import BuildConfig, SourceConfig, load_build_config
from icae.data.mixture import choose_copies, plan_tokens
from icae.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("data-*.yaml"))


def some_keys(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**63, (count, 2)).astype(np.uint64)


def test_choice_of_a_document_does_not_depend_on_the_others():
    keys, tokens = some_keys(500), np.full(500, 10)
    order = np.random.default_rng(1).permutation(500)
    copies = choose_copies(keys, tokens, wanted=900, seed=0)
    assert copies.sum() == 90
    again = choose_copies(keys[order], tokens, wanted=900, seed=0)
    assert again.tolist() == copies[order].tolist()
    assert choose_copies(keys, tokens, wanted=900, seed=1).tolist() != copies.tolist()


@settings(max_examples=50, deadline=None)
@given(
    tokens=st.lists(st.integers(1, 1000), min_size=1, max_size=40),
    share=st.floats(0, 3),
    seed=st.integers(0, 5),
)
def test_chosen_tokens_miss_the_target_by_less_than_any_document_left_out(tokens, share, seed):
    counts, keys = np.array(tokens), some_keys(len(tokens), seed)
    wanted = int(share * counts.sum())
    copies = choose_copies(keys, counts, wanted=wanted, seed=seed)
    missing = wanted - int((copies * counts).sum())
    assert copies.max() - copies.min() <= 1, "every document before any twice"
    assert missing >= 0
    assert all(missing < size for size in counts[copies == copies.min()]) or missing == 0


def source(name="a", **options):
    return SourceConfig(**{"name": name, "paths": ("x.txt",), "weight": 1.0, **options})


@pytest.mark.parametrize(
    ("weights", "repeats", "available", "budget", "planned"),
    [
        ((65, 10, 25), (1, 2, 1), (1000, 100, 500), None, (1000, 154, 384)),
        ((1, 1), (1, 2), (900, 100), 1000, (500, 200)),
    ],
)
def test_shares_are_planned_from_what_there_is(weights, repeats, available, budget, planned):
    sources = [source(weight=w, repeat=r) for w, r in zip(weights, repeats, strict=True)]
    assert plan_tokens(sources, available, budget=budget) == planned


@given(
    st.lists(
        st.tuples(st.integers(1, 10**9), st.floats(0.01, 100), st.integers(1, 4)),
        min_size=1,
        max_size=6,
    )
)
def test_shares_are_exact_without_a_budget(offers):
    sources = [source(weight=weight, repeat=repeat) for _, weight, repeat in offers]
    planned = plan_tokens(sources, [tokens for tokens, _, _ in offers], budget=None)
    total = sum(one.weight for one in sources)
    for (tokens, weight, repeat), chosen in zip(offers, planned, strict=True):
        assert chosen <= repeat * tokens
        assert chosen == pytest.approx(weight / total * sum(planned), abs=len(offers))


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
