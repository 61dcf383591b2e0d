from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from icae.config.spans import chunk_bounds
from icae.errors import ConfigError
from icae.evals import SlotsSettings
from icae.evals.memories import encode_contexts, score_tasks
from icae.evals.slot_pages import slot_texts
from icae.evals.slots import (
    chunk_places,
    locality_figures,
    mass_share,
    own_chunks,
    slot_drops,
)
from icae.model.objectives import autoencoding


def test_own_chunks_are_those_of_the_spans() -> None:
    own = own_chunks(((7, 3), (4, 2)))
    assert own.shape == (5, 11)
    for slot, (start, end) in enumerate(chunk_bounds(7, 3)):
        assert np.flatnonzero(own[slot]).tolist() == list(range(start, end))
    assert np.flatnonzero(own[4]).tolist() == [9, 10]
    assert chunk_places(((4, 2), (2, 1))).tolist() == [0, 0, 1, 1, 2, 2]


def test_share_of_the_mass_is_that_of_a_hand_computed_case() -> None:
    drops = np.array([[3.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]])
    own = own_chunks(((4, 2),))
    assert mass_share(drops, own) == 1.0
    assert mass_share(drops[::-1], own) == 0.0
    assert mass_share(np.array([[1.0, 1, 1, 1], [-1, 1, 1, -1]]), own) == 0.5
    assert mass_share(np.zeros((2, 4)), own) == 0.5  # nothing changed: as if evenly spread


def test_figures_split_the_mass_into_own_before_and_after(monkeypatch: Any) -> None:
    monkeypatch.setattr("icae.evals.metrics.RESAMPLES", 20)
    own = own_chunks(((6, 3),))
    drops = np.array([[4.0, 0, 1, 0, 1, 0], [0, 2, 2, 0, 0, 0], [0, 0, 0, 0, 0, -2]])
    figures = locality_figures([drops, drops], own, seed=0)
    values = {key: figures[key]["value"] for key in ("locality", "before", "after", "near")}
    assert values == pytest.approx(
        {"locality": 8 / 12, "before": 2 / 12, "after": 2 / 12, "near": 11 / 12}
    )
    assert figures["chance"] == pytest.approx(1 / 3, abs=1e-3)
    assert figures["own_drop"]["value"] == pytest.approx((4 + 0 + 2 + 0 + 0 - 2) / 6)
    assert figures["other_drop"]["value"] == pytest.approx(4 / 12)


def test_drops_equal_scoring_each_changed_memory_alone(
    engine: Any, random_ids: Any, ignore: Any
) -> None:
    runtime, ids = engine.runtime, random_ids(20)
    (memory,) = encode_contexts(runtime, [ids], ratio=4, tick=ignore)
    mean = memory.slots_KD.mean(axis=0)

    drops, loss = slot_drops(runtime, memory, ids, mean, tick=ignore)

    task = autoencoding(ids)
    (intact,) = score_tasks(runtime, [memory], [task], tick=ignore)
    assert drops.shape == (5, 20)
    assert loss == pytest.approx(intact.losses_T.mean(), abs=1e-4)
    for k in range(5):
        changed = memory.slots_KD.copy()
        changed[k] = mean
        (score,) = score_tasks(runtime, [replace(memory, slots_KD=changed)], [task], tick=ignore)
        assert drops[k] == pytest.approx(score.losses_T - intact.losses_T, abs=1e-3)


def test_replacing_a_slot_by_itself_changes_nothing(
    engine: Any, random_ids: Any, ignore: Any
) -> None:
    ids = random_ids(4)
    (memory,) = encode_contexts(engine.runtime, [ids], ratio=4, tick=ignore)
    drops, _ = slot_drops(engine.runtime, memory, ids, memory.slots_KD[0], tick=ignore)
    assert drops == pytest.approx(np.zeros((1, 4)), abs=1e-4)


def test_a_run_writes_a_page_with_the_text_of_its_examples(run: Any, tmp_path: Any) -> None:
    settings = SlotsSettings(lengths=(16,), ratios=(4.0,), samples=3, examples=1)
    finished = run(settings)
    (row,) = finished.rows
    assert row["slots"] == len(row["drops"]) == 4
    assert len(row["drops"][0]) == 16
    assert len(row["examples"]) == 1
    page = (tmp_path / "out" / "slots.html").read_text()
    assert page.count("<div style=") == 4
    assert "data:image/png;base64," in page
    assert "16 tokens, 4x" in page
    assert [path.suffix for path in finished.files] == [".json", ".md", ".png", ".html"]


def test_text_of_an_example_is_escaped() -> None:
    example = {"tokens": ["<b>", "\n"], "own": [0, 0], "drops": [[5.0, -0.5]]}
    page = slot_texts([{"series": "s", "examples": [example]}])
    assert "<b>&lt;" not in page
    assert "&lt;b&gt;" in page
    assert "rgba(214,47,39,0.8)" in page
    assert "rgba(44,101,176,0.1)" in page


def test_an_example_too_large_to_shade_is_text_alone() -> None:
    example = {"tokens": ["a"] * 100, "own": [0] * 100, "drops": [[0.0] * 100] * 90}
    assert "<span" not in slot_texts([{"series": "s", "examples": [example]}])


def test_more_examples_than_contexts_are_refused() -> None:
    with pytest.raises(ConfigError, match="examples"):
        SlotsSettings(lengths=(16,), ratios=(4.0,), samples=2, examples=3)
