"""Going on from a text: behind one span and behind many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from icae.evals import Continuation, MultiSpan
from icae.evals.decoding import led_continuation
from icae.evals.multi_span import crossing, equal_tokens, tail_sizes


@pytest.fixture
def rows(run: Any) -> dict[tuple[int, str], Any]:
    """Rows of windows of 40 tokens, one that leads over and 12 scored: by length and kind."""
    settings = Continuation(lengths=(16, 40), ratios=(4.0,), tokens=12, samples=3)
    return {(row["length"], row["kind"]): row for row in run(settings).rows}


def direct_losses(engine: Any, texts: Any) -> list[float]:
    """Losses of ordinary transformers calls with labels on the last 12 tokens."""
    losses = []
    for ids in texts:
        row = torch.tensor(ids)[None]
        labels = row.clone()
        labels[:, :-12] = -100
        with torch.no_grad():
            losses.append(float(engine.runtime.model.decoder(input_ids=row, labels=labels).loss))
    return losses


def test_raw_tokens_score_as_in_transformers(
    rows: Any, engine: Any, windows: Callable[..., Any]
) -> None:
    texts = [window.ids for window in windows(53, 3)]
    for length in (16, 40):
        losses = direct_losses(engine, [ids[40 - length :] for ids in texts])
        row = rows[length, "full context"]
        assert row["per_context"]["loss"] == pytest.approx(losses, abs=1e-4)
        assert row["perplexity"]["value"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
        assert row["over_full"] == {"value": 1.0, "low": 1.0, "high": 1.0}
        losses = direct_losses(engine, [ids[40:] for ids in texts])
        assert rows[length, "no context"]["per_context"]["loss"] == pytest.approx(losses, abs=1e-4)
    last = rows[40, "last tokens"]
    assert last["positions"] == 10  # spans of 16, 16 and 8 tokens: 4 + 4 + 2 slots
    losses = direct_losses(engine, [ids[30:] for ids in texts])
    assert last["per_context"]["loss"] == pytest.approx(losses, abs=1e-4)


def test_slots_are_scored_on_the_same_tokens_behind_the_lm_token(
    rows: Any, engine: Any, windows: Callable[..., Any]
) -> None:
    from icae.model.objectives import Sample

    samples = [
        Sample(context_ids=ids[:40], ratio=4.0, tasks=(led_continuation(ids[40:]),))
        for ids in (window.ids for window in windows(53, 3))
    ]
    with torch.no_grad():
        scores = engine.runtime.model(samples)
    assert [s.labels for s in scores] == [12, 12, 12]
    expected = [float(s.loss_sum) / 12 for s in scores]
    assert rows[40, "slots"]["per_context"]["loss"] == pytest.approx(expected, abs=1e-4)
    assert rows[40, "slots"]["positions"] == 11


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
    found = crossing([0, 1, 3, 7], np.array([4.0, 3.0, 2.0, 1.0]), wanted)
    assert found == pytest.approx(expected)
    rising = np.array([4.0, 2.0, 3.0, 1.0])  # the lowest loss so far counts
    assert crossing([0, 1, 3, 7], rising, 1.5) == pytest.approx(math.sqrt(4 * 8) - 1)


def test_equal_tokens_are_those_of_the_mean_over_contexts(quick: None) -> None:
    curves = np.array([[4.0, 3.0, 2.0], [6.0, 5.0, 2.0]])  # mean 5, 4, 2
    figure = equal_tokens([0, 1, 3], curves, np.array([4.0, 4.0]), seed=0)
    assert figure["value"] == pytest.approx(1.0)
    alone = sorted(crossing([0, 1, 3], curve, 4.0) for curve in curves)  # 0 and above 1
    assert alone[0] <= figure["low"] <= figure["value"] <= figure["high"] <= alone[1]


def test_rows_of_many_spans_are_those_of_the_continuation_experiment(run: Any) -> None:
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
