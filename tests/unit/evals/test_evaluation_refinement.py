from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from icae.compression.refinement import Refined
from icae.evals import Continuation, Refinement
from icae.evals import refinement as experiment
from icae.evals.decoding import encode_contexts
from icae.memory import Embeddings


@pytest.fixture
def settings() -> Refinement:
    """Two steps and no KL term."""
    return Refinement(
        lengths=(12,),
        ratios=(4.0,),
        steps=2,
        every=1,
        samples=2,
        greedy=1,
        kl=0,
    )


@pytest.fixture
def contexts(windows: Any) -> list[Any]:
    """The contexts of these settings: 12 tokens, before one that leads over and 32 scored."""
    return [window.context(12, after=33) for window in windows(45, 2)]


def test_accuracy_at_step_0_is_the_fidelity_of_the_start_slots(
    run: Any, engine: Any, settings: Any, contexts: Any
) -> None:
    row = run(replace(settings, steps=1, greedy=0)).rows[0]
    memories = encode_contexts(engine.runtime, contexts, ratio=4.0)
    slots = [memory.parts[0] for memory in memories]
    expected = [found.share for found in engine.runtime.fidelity(slots, contexts)]
    assert row["step"] == 0
    assert row["per_context"]["accuracy"] == pytest.approx(expected)
    assert row["accuracy"]["value"] == row["best_accuracy"]["value"] == np.mean(expected)


def test_every_cell_has_a_row_for_each_reported_step(run: Any, settings: Any) -> None:
    wide = replace(settings, ratios=(4.0, 6.0), greedy=0)
    rows = run(replace(wide, steps=5, every=2)).rows
    keys = [(r["length"], r["ratio"], r["step"]) for r in rows]
    assert keys == [(12, ratio, step) for ratio in (4.0, 6.0) for step in (0, 2, 4, 5)]
    assert [r["slots"] for r in rows] == [3] * 4 + [2] * 4
    assert len({r["series"] for r in rows}) == 2


def test_losses_are_those_of_the_continuation_experiment_at_both_ends_only(
    run: Any, settings: Any
) -> None:
    first, middle, last = run(settings).rows
    told = Continuation(lengths=(12,), ratios=(4.0,), tokens=32, samples=2)
    found = {row["kind"]: row["loss"]["value"] for row in run(told).rows}
    kinds = {"loss": "slots", "full_loss": "full context", "bare_loss": "no context"}
    for key, kind in kinds.items():
        assert first[key]["value"] == pytest.approx(found[kind])
        assert key in last
        assert key not in middle
    assert "seconds" not in first
    assert last["seconds"]["value"] > 0
    for row in (first, middle, last):
        assert row["greedy_samples"] == 1
        assert {"bleu", "prefix_share"} <= row.keys()
    assert set(last["per_context"]) == {"accuracy", "loss", "bleu", "prefix_share"}


def test_spans_that_are_done_stay_where_they_were_and_text_is_of_the_best_slots(
    run: Any, engine: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = [(0.25, 1.0), (0.5, 0.75, 0.5, 0.75, 0.25)]
    seen: list[Any] = []

    def write_back(runtime: Any, memories: Any) -> Any:
        seen.append([float(memory.numbers[0, 0]) for memory in memories])
        return [(0,) * 12 for _ in memories]

    def refine(model: Any, tasks: Any, config: Any, *, on_slots: Any, **more: Any) -> Any:
        for i in (1, 0):
            start = tasks[i].payload
            for step in range(len(histories[i])):
                own = np.full_like(start.numbers, 10 * i + step)
                on_slots(i, step, Embeddings(slots_KD=own))
            (fidelity,) = engine.runtime.fidelity([start], [tasks[i].token_ids])
            refined = Refined(
                payload=start,
                token_fidelity=fidelity,
                steps=len(histories[i]) - 1,
                seconds=2.0 + i,
                history=histories[i],
                reached=i == 0,
            )
            yield i, refined

    monkeypatch.setattr(experiment, "write_back", write_back)
    monkeypatch.setattr(experiment, "refine", refine)
    rows = run(replace(settings, steps=6, every=2, greedy=2)).rows
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    shares = [[0.25, 0.5], [1.0, 0.5], [1.0, 0.25], [1.0, 0.25]]
    assert [r["per_context"]["accuracy"] for r in rows] == shares
    assert [r["best_accuracy"]["value"] for r in rows] == [0.375, 0.875, 0.875, 0.875]
    assert rows[-1]["seconds"]["value"] == 2.5
    assert [r["done"] for r in rows] == [0.0, 0.5, 0.5, 0.5]
    assert seen == [[0.0, 10.0], [1.0, 12.0], [1.0, 14.0]]  # that of the last step is known
    assert all("bleu" in row for row in rows)


def test_teachers_are_written_only_for_a_kl_term(
    run: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def write(self: Any, contexts: Any) -> Any:
        lengths.extend(len(ids) for ids in contexts)
        return real(self, contexts)

    real = experiment.TeacherWriter.write
    monkeypatch.setattr(experiment.TeacherWriter, "write", write)
    run(settings, folder="alone")
    assert lengths == []
    assert (
        len(run(replace(settings, kl=1.0, steps=10, every=10, greedy=0), folder="both").rows) == 2
    )
    assert lengths == [12, 12]
