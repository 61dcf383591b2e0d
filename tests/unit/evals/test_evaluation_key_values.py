"""Experiments on an engine whose memories are keys and values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from icae.errors import InputError
from icae.evals import Continuation, Qa, Refinement, Slots
from icae.evals.contexts import draw_windows, read_documents
from icae.model import Sample
from icae.model.objectives import autoencoding


@pytest.fixture
def engine(build_engine: Callable[..., Any]) -> Any:
    return build_engine(memory="key-values", framing="between", objective_tokens=2)


def test_reconstruction_equals_the_scores_of_the_model(
    run: Any, engine: Any, corpus: Path, settings: Any
) -> None:
    (own,) = (
        r for r in run(settings).rows if (r["length"], r["ratio"], r["kind"]) == (24, 4.0, "own")
    )
    documents = read_documents([corpus], engine.tokenizer)
    windows = draw_windows(documents, size=24, samples=4, seed=0).windows
    with torch.no_grad():
        scores = engine.runtime.model(
            [Sample(context_ids=w.ids, ratio=4.0, tasks=(autoencoding(w.ids),)) for w in windows]
        )
    shares = [float(score.correct_T.float().mean()) for score in scores]
    assert own["slots"] == 6
    assert own["per_context"]["accuracy"] == pytest.approx(shares)


def test_continuation_runs(run: Any) -> None:
    settings = Continuation(lengths=(16,), ratios=(4.0,), tokens=8, samples=3)
    rows = run(settings).rows
    assert {row["kind"] for row in rows} == {"full context", "no context", "slots", "last tokens"}


def test_questions_are_answered(run: Any, tmp_path: Path) -> None:
    lines = [
        {"context": "the lamp of a harbour", "prompt": f"who {n}?", "answer": "men"}
        for n in range(3)
    ]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows = run(Qa(ratios=(4.0,), questions=None, max_new_tokens=4), inputs=[path]).rows
    assert any(row.get("ratio") == 4.0 for row in rows)


@pytest.mark.parametrize(
    "settings",
    [
        Slots(lengths=(16,), ratios=(4.0,), samples=2, examples=1),
        Refinement(lengths=(16,), ratios=(4.0,), samples=2, greedy=1),
    ],
)
def test_experiments_on_single_slots_are_refused(run: Any, settings: Any) -> None:
    with pytest.raises(InputError) as caught:
        run(settings)
    assert caught.value.got is not None
    assert caught.value.fix is not None
