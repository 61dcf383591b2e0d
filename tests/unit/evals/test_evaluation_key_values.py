"""Experiments on an engine whose memories are keys and values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from icae.evals import Qa, Refinement
from icae.model.objectives import Sample, autoencoding


@pytest.fixture
def engine(build_engine: Callable[..., Any]) -> Any:
    return build_engine(memory="key-values", framing="between", objective_tokens=2)


def test_reconstruction_equals_the_scores_of_the_model(
    run: Any, engine: Any, windows: Callable[..., Any], settings: Any
) -> None:
    (own,) = (
        r for r in run(settings).rows if (r["length"], r["ratio"], r["kind"]) == (24, 4.0, "own")
    )
    texts = [window.ids for window in windows(24, 4)]
    with torch.no_grad():
        scores = engine.runtime.model(
            [Sample(context_ids=ids, ratio=4.0, tasks=(autoencoding(ids),)) for ids in texts]
        )
    shares = [float(score.correct_T.float().mean()) for score in scores]
    assert own["slots"] == 6
    assert own["per_context"]["accuracy"] == pytest.approx(shares)


def test_questions_are_answered(run: Any, write_lines: Callable[..., Path]) -> None:
    lines = [
        {"context": "the lamp of a harbour", "prompt": f"who {n}?", "answer": "men"}
        for n in range(3)
    ]
    path = write_lines("asked.jsonl", lines)
    rows = run(Qa(ratios=(4.0,), questions=None, max_new_tokens=4), inputs=[path]).rows
    assert any(row.get("ratio") == 4.0 for row in rows)


def test_refinement_is_measured(run: Any) -> None:
    (row,) = [
        row
        for row in run(Refinement(lengths=(16,), ratios=(4.0,), samples=2, greedy=1, steps=2)).rows
        if row.get("ratio") == 4.0
    ][:1]
    assert row["length"] == 16
