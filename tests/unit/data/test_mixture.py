from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.data.build_config import SourceConfig, load_build_config
from icae.data.mixture import choose_copies, plan_tokens
from icae.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("data-*.yaml"))


def some_keys(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**63, (count, 2)).astype(np.uint64)


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: [{name: a, paths: [x], weight: 1, wieght: 2}]", "unknown key(.|\n)*wieght"),
        ("sources: [{name: a, paths: [x]}]", "missing(.|\n)*weight"),
        ("sources: [{name: a, paths: [x], weight: 1}]\nsede: 1", "unknown key(.|\n)*sede"),
        ("sources: []", "at least one source"),
        ("seed: 1", "missing(.|\n)*sources"),
        ("sources: [{name: a, paths: [x], weight: 1, repeat: 0}]", "source is out of range"),
        ("sources: [{name: '', paths: [x], weight: 1}]", "source is out of range"),
        ("sources: [{name: a, paths: [], weight: 1}]", "source is out of range"),
        ("sources: [{name: a, paths: [x], weight: 0}]", "source is out of range"),
        ("sources: [{name: evaluation, paths: [x], weight: 1}]", "sources cannot be used"),
        *(
            (f"{setting}\nsources: [{{name: a, paths: [x], weight: 1}}]", "out of range")
            for setting in ("tokens: 0", "validation_share: 1.0", "min_tokens: 0")
        ),
    ],
)
def test_wrong_file_is_refused(tmp_path, text, message):
    (tmp_path / "b.yaml").write_text(text + "\n")
    with pytest.raises(ConfigError, match=message):
        load_build_config(tmp_path / "b.yaml")
