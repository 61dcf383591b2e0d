from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from icae.evals import Continuation, MultiSpan
from icae.evals.multi_span import crossing, equal_tokens, tail_sizes


def test_tails_are_powers_of_two_below_the_length_and_the_length() -> None:
    assert tail_sizes(64) == [0, 1, 2, 4, 8, 16, 32, 64]
    assert tail_sizes(48) == [0, 1, 2, 4, 8, 16, 32, 48]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (5.0, 0.0),  # no better than nothing
        (4.0, 0.0),
        (3.0, 1.0),
        (2.0, 3.0),
        (2.5, math.sqrt(2 * 4) - 1),  # half way between 1 and 3 on log(1 + n)
        (1.0, 7.0),
        (0.5, 7.0),  # better than all of it
    ],
)
def test_a_loss_is_reached_where_the_curve_crosses_it(wanted: float, expected: float) -> None:
    curve = np.array([4.0, 3.0, 2.0, 1.0])
    assert crossing([0, 1, 3, 7], curve, wanted) == pytest.approx(expected)


def test_where_the_curve_rises_the_lowest_loss_so_far_counts() -> None:
    curve = np.array([4.0, 2.0, 3.0, 1.0])
    assert crossing([0, 1, 3, 7], curve, 2.0) == pytest.approx(1.0)
    assert crossing([0, 1, 3, 7], curve, 1.5) == pytest.approx(math.sqrt(4 * 8) - 1)


def test_equal_tokens_are_those_of_the_mean_over_contexts(monkeypatch: Any) -> None:
    monkeypatch.setattr("icae.evals.bootstrap.RESAMPLES", 50)
    curves = np.array([[4.0, 3.0, 2.0], [6.0, 5.0, 2.0]])  # mean 5, 4, 2
    figure = equal_tokens([0, 1, 3], curves, np.array([4.0, 4.0]), seed=0)
    assert figure["value"] == pytest.approx(1.0)
    alone = sorted(crossing([0, 1, 3], curve, 4.0) for curve in curves)  # 0 and above 1
    assert alone[0] <= figure["low"] <= figure["value"] <= figure["high"] <= alone[1]


def test_rows_are_those_of_the_continuation_experiment(run: Any) -> None:
    options: dict[str, Any] = {"lengths": (32, 64), "ratios": (4.0,), "tokens": 8, "samples": 3}
    rows = run(MultiSpan(**options)).rows
    assert [(r["spans"], r["ratio"], r["kind"]) for r in rows] == [
        (spans, ratio, kind)
        for spans in (2, 4)
        for ratio, kind in ((None, "full context"), (None, "no context"), (4.0, "slots"))
    ]
    expected = run(Continuation(**options), folder="other").rows
    for row in rows:
        same = next(r for r in expected if all(r[k] == row[k] for k in ("length", "ratio", "kind")))
        assert row["perplexity"] == pytest.approx(same["perplexity"])
    full, _, slots = rows[:3]
    assert full["tails"] == [0, 1, 2, 4, 8, 16, 32]
    assert np.shape(full["tail_losses"]) == (3, 7)
    assert 0 <= slots["raw_equal"]["value"] <= 32
    assert slots["positions"] == 9  # 2 spans of 16 tokens at 4x, one [LM] token
    assert slots["gain"]["value"] == pytest.approx(slots["raw_equal"]["value"] / 9)
