from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from icae.config.spans import chunk_bounds
from icae.evals import Slots
from icae.evals.decoding import ContextMemory, encode_contexts, score_tasks
from icae.evals.slots import (
    locality_figures,
    mass_share,
    own_chunks,
    slot_drops,
)
from icae.model.objectives import autoencoding
from mixed_prefix import KEY_VALUES


def test_own_chunks_are_those_of_the_spans() -> None:
    own = own_chunks(((7, 3), (4, 2)))
    assert own.shape == (5, 11)
    for slot, (start, end) in enumerate(chunk_bounds(7, 3)):
        assert np.flatnonzero(own[slot]).tolist() == list(range(start, end))
    assert np.flatnonzero(own[4]).tolist() == [9, 10]


def test_share_of_the_mass_is_that_of_a_hand_computed_case() -> None:
    drops = np.array([[3.0, -1.0, 0.0, 0.0], [0.0, 0.0, 2.0, -2.0]])
    own = own_chunks(((4, 2),))
    assert mass_share(drops, own) == 1.0
    assert mass_share(drops[::-1], own) == 0.0
    assert mass_share(np.array([[1.0, 1, 1, 1], [-1, 1, 1, -1]]), own) == 0.5
    assert mass_share(np.zeros((2, 4)), own) == 0.5  # nothing changed: as if evenly spread


def test_figures_split_the_mass_into_own_before_and_after(quick: None) -> None:
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


@pytest.mark.parametrize("form", [{}, KEY_VALUES], ids=["embeddings", "key-values"])
def test_drops_equal_scoring_each_changed_memory_alone(
    build_engine: Any, random_ids: Any, form: dict[str, Any]
) -> None:
    runtime, ids = build_engine(**form).runtime, random_ids(20)
    (memory,) = encode_contexts(runtime, [ids], ratio=4)
    mean = memory.numbers.mean(axis=0)

    drops, loss = slot_drops(runtime, memory, ids, mean)

    task = autoencoding(ids)
    (intact,) = score_tasks(runtime, [memory], [task])
    assert drops.shape == (5, 20)
    assert loss == pytest.approx(intact.losses_T.mean(), abs=1e-4)
    for k in range(5):
        changed = memory.numbers.copy()
        changed[k] = mean
        parts = (memory.parts[0].changed(changed[:4]), memory.parts[1].changed(changed[4:]))
        own = ContextMemory(parts=parts, spans=memory.spans)
        (score,) = score_tasks(runtime, [own], [task])
        assert drops[k] == pytest.approx(score.losses_T - intact.losses_T, abs=1e-3)


def test_a_run_holds_the_mean_changes_and_examples(run: Any) -> None:
    settings = Slots(lengths=(16,), ratios=(4.0,), samples=3, examples=1)
    (row,) = run(settings).rows
    assert row["slots"] == len(row["drops"]) == 4
    assert len(row["drops"][0]) == 16
    (example,) = row["examples"]
    assert example["own"] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert len(example["tokens"]) == 16
