import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.data.build_config import SourceConfig
from icae.data.mixture import choose_copies, is_validation, plan_tokens


def some_keys(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**63, (count, 2)).astype(np.uint64)


def test_side_of_a_document_does_not_depend_on_the_others():
    keys = some_keys(500)
    order = np.random.default_rng(1).permutation(500)
    sides = is_validation(keys, share=0.3, seed=0)
    assert is_validation(keys[order], share=0.3, seed=0).tolist() == sides[order].tolist()
    assert 0.2 < sides.mean() < 0.4
    assert sides.tolist() != is_validation(keys, share=0.3, seed=1).tolist()


def test_larger_validation_share_keeps_what_was_held_out():
    keys = some_keys(500)
    small, large = (is_validation(keys, share=share, seed=0) for share in (0.1, 0.3))
    assert (small <= large).all()


def sources(*weights_and_repeats):
    return [
        SourceConfig(name=str(i), paths=("x",), weight=weight, repeat=repeat)
        for i, (weight, repeat) in enumerate(weights_and_repeats)
    ]


def test_without_a_budget_the_scarcest_source_sets_the_total():
    wanted = plan_tokens(sources((65, 1), (10, 2), (25, 1)), [1000, 100, 500], budget=None)
    assert wanted == (1000, 154, 384)


def test_source_too_small_for_the_budget_gives_all_it_may():
    assert plan_tokens(sources((1, 1), (1, 2)), [900, 100], budget=1000) == (500, 200)


@given(
    st.lists(
        st.tuples(st.integers(1, 10**9), st.floats(0.01, 100), st.integers(1, 4)),
        min_size=1,
        max_size=6,
    )
)
def test_shares_are_exact_without_a_budget(offers):
    available = [tokens for tokens, _, _ in offers]
    wanted = sources(*((weight, repeat) for _, weight, repeat in offers))
    planned = plan_tokens(wanted, available, budget=None)
    total = sum(source.weight for source in wanted)
    for source, tokens, chosen in zip(wanted, available, planned, strict=True):
        assert chosen <= source.repeat * tokens
        share = source.weight / total * sum(planned)
        assert chosen == pytest.approx(share, abs=len(offers))


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
    assert copies.max() - copies.min() <= 1
    assert missing >= 0
    assert all(missing < size for size in counts[copies == copies.min()]) or missing == 0


def test_choice_follows_the_text_and_the_seed_and_not_the_order():
    keys, tokens = some_keys(200), np.full(200, 10)
    order = np.random.default_rng(1).permutation(200)
    copies = choose_copies(keys, tokens, wanted=900, seed=0)
    assert copies.sum() == 90
    again = choose_copies(keys[order], tokens, wanted=900, seed=0)
    assert again.tolist() == copies[order].tolist()
    assert choose_copies(keys, tokens, wanted=900, seed=1).tolist() != copies.tolist()


def test_source_used_more_than_once_uses_every_document_before_any_twice():
    copies = choose_copies(some_keys(10), np.full(10, 7), wanted=7 * 15, seed=0)
    assert sorted(copies.tolist()) == [1] * 5 + [2] * 5


def test_source_without_documents_gives_none():
    assert choose_copies(some_keys(0), np.zeros(0, dtype=np.int64), wanted=5, seed=0).tolist() == []
