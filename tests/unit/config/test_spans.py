from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icae.config.spans import chunk_bounds, chunk_centres, chunk_of_tokens, plan_spans, slot_count
from icae.errors import ConfigError

LENGTHS = st.integers(min_value=1, max_value=3000)
RATIOS = st.floats(min_value=1, max_value=64)


@given(length=LENGTHS, span_length=st.integers(1, 600), ratio=RATIOS)
def test_spans_tile_the_context_exactly(length: int, span_length: int, ratio: float) -> None:
    plans = plan_spans(length, span_length=span_length, ratio=ratio)

    covered = [i for plan in plans for i in range(plan.token_start, plan.token_end)]
    assert covered == list(range(length))
    assert all(plan.length == span_length for plan in plans[:-1])
    assert 1 <= plans[-1].length <= span_length


@given(length=LENGTHS, ratio=RATIOS)
def test_a_span_has_at_least_one_slot_and_at_most_its_length(length: int, ratio: float) -> None:
    slots = slot_count(length, ratio)

    assert 1 <= slots <= length
    assert abs(slots - length / ratio) < 1 or slots == length


def test_a_fraction_that_rounds_up_in_floating_point_gets_no_extra_slot() -> None:
    pairs = [(length, k) for length in range(1, 200) for k in range(1, length + 1)]

    assert any(length / (length / k) > k for length, k in pairs)
    assert all(slot_count(length, length / k) == k for length, k in pairs)


@pytest.mark.parametrize(
    ("length", "span_length", "ratio", "message"),
    [
        *((100, 10, ratio, "tokens per slot") for ratio in (0.99, 0, -4, math.nan, math.inf)),
        (0, 16, 4, "nothing to compress"),
        (-1, 16, 4, "nothing to compress"),
        (5, 0, 4, "span length"),
    ],
)
def test_lengths_and_ratios_below_one_are_refused(
    length: int, span_length: int, ratio: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        plan_spans(length, span_length=span_length, ratio=ratio)
    assert str(caught.value.got).startswith(
        str(ratio) if length == 100 else str(min(length, span_length))
    )
    with pytest.raises(ConfigError, match="at least one token"):
        slot_count(0, 4)


@given(st.integers(1, 700).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_chunks_tile_the_span_with_sizes_that_differ_by_at_most_one(size: tuple[int, int]) -> None:
    length, slots = size
    bounds = chunk_bounds(length, slots)

    assert len(bounds) == slots
    assert bounds[0][0] == 0
    assert bounds[-1][1] == length
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))
    sizes = {end - start for start, end in bounds}
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_every_token_is_in_the_chunk_that_its_bounds_say(size: tuple[int, int]) -> None:
    length, slots = size
    bounds = chunk_bounds(length, slots)

    expected = [i for i, (start, end) in enumerate(bounds) for _ in range(start, end)]
    assert list(chunk_of_tokens(length, slots)) == expected


def test_chunks_and_centres_match_hand_computed_ones() -> None:
    assert chunk_bounds(8, 2) == ((0, 4), (4, 8))
    assert chunk_centres(8, 2) == (1, 5)
    assert chunk_bounds(5, 2) == ((0, 2), (2, 5))
    assert chunk_centres(5, 2) == (0, 3)
    assert chunk_centres(3, 3) == (0, 1, 2)


@pytest.mark.parametrize(("length", "slots"), [(4, 5), (4, 0), (0, 1)])
def test_more_chunks_than_tokens_are_refused(length: int, slots: int) -> None:
    with pytest.raises(ConfigError, match="cannot be cut"):
        chunk_bounds(length, slots)
