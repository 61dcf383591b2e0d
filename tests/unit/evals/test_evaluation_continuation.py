from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icae.errors import ConfigError
from icae.evals import Continuation
from icae.evals.contexts import draw_windows, read_documents
from icae.evals.decoding import led_continuation


@pytest.fixture
def settings() -> Continuation:
    return Continuation(lengths=(16, 40), ratios=(4.0,), tokens=12, samples=3)


@pytest.fixture
def windows(engine: Any, corpus: Path) -> Any:
    """The windows of these settings: 40 tokens, one that leads over, 12 scored."""
    documents = read_documents([corpus], engine.tokenizer)
    return [w.ids for w in draw_windows(documents, size=53, samples=3, seed=0).windows]


def row_of(finished: Any, length: int, kind: str) -> dict[str, Any]:
    return next(r for r in finished.rows if r["length"] == length and r["kind"] == kind)


def direct_loss(engine: Any, ids: Any, scored: int) -> float:
    """Loss of an ordinary transformers call with labels on the last tokens."""
    row = torch.tensor(ids)[None]
    labels = row.clone()
    labels[:, :-scored] = -100
    with torch.no_grad():
        return float(engine.runtime.model.decoder(input_ids=row, labels=labels).loss)


def test_full_context_perplexity_equals_that_of_transformers(
    run: Any, engine: Any, settings: Any, windows: Any
) -> None:
    finished = run(settings)
    for length in (16, 40):
        losses = [direct_loss(engine, ids[40 - length :], 12) for ids in windows]
        row = row_of(finished, length, "full context")
        assert row["per_context"]["loss"] == pytest.approx(losses, abs=1e-4)
        assert row["perplexity"]["value"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
        assert row["over_full"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_no_context_equals_a_direct_loss_on_the_continuation(
    run: Any, engine: Any, settings: Any, windows: Any
) -> None:
    finished = run(settings)
    expected = []
    for ids in windows:
        row = torch.tensor(ids[40:])[None]
        with torch.no_grad():
            expected.append(float(engine.runtime.model.decoder(input_ids=row, labels=row).loss))
    for length in (16, 40):
        row = row_of(finished, length, "no context")
        assert row["per_context"]["loss"] == pytest.approx(expected, abs=1e-4)


def test_last_tokens_are_as_many_as_there_are_slots(
    run: Any, engine: Any, settings: Any, windows: Any
) -> None:
    row = row_of(run(settings), 40, "last tokens")
    assert row["positions"] == 10  # spans of 16, 16 and 8 tokens: 4 + 4 + 2 slots
    losses = [direct_loss(engine, ids[30:], 12) for ids in windows]
    assert row["per_context"]["loss"] == pytest.approx(losses, abs=1e-4)


def test_slots_are_scored_on_the_same_tokens_behind_the_lm_token(
    run: Any, engine: Any, settings: Any, windows: Any
) -> None:
    from icae.model import Sample

    row = row_of(run(settings), 40, "slots")
    samples = [
        Sample(context_ids=ids[:40], ratio=4.0, tasks=(led_continuation(ids[40:]),))
        for ids in windows
    ]
    with torch.no_grad():
        scores = engine.runtime.model(samples)
    assert [s.labels for s in scores] == [12, 12, 12]
    expected = [float(s.loss_sum) / 12 for s in scores]
    assert row["per_context"]["loss"] == pytest.approx(expected, abs=1e-4)
    assert row["positions"] == 11


def test_a_continuation_of_no_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="continuation"):
        Continuation(lengths=(16,), ratios=(2.0,), tokens=0)
