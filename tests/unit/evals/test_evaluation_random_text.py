from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from icae.evals import RandomText, Reconstruction
from icae.evals.random_text import make_text, ordinary_ids

ORDINARY = np.array([0, 1, 2, 4, 5])


def test_patterned_text_is_the_next_id_of_each_without_special_tokens() -> None:
    (made,) = make_text("patterned", [np.array([0, 1, 2, 5])], ORDINARY, seed=0)
    assert made.tolist() == [1, 2, 4, 0]


def test_random_text_has_the_same_lengths_and_depends_on_the_seed() -> None:
    contexts = [np.zeros(50, np.int64), np.zeros(7, np.int64)]
    made = make_text("random", contexts, ORDINARY, seed=1)
    assert [len(ids) for ids in made] == [50, 7]
    assert set(np.concatenate(made)) == set(ORDINARY)
    again = make_text("random", contexts, ORDINARY, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    other = make_text("random", contexts, ORDINARY, seed=2)
    assert not np.array_equal(made[0], other[0])


def test_ordinary_ids_leave_out_special_tokens(tokenizer: Any) -> None:
    ids = ordinary_ids(tokenizer)
    assert len(ids) == len(tokenizer) - len(tokenizer.all_special_ids)
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_normal_text_scores_as_in_reconstruction(run: Any) -> None:
    grid: dict[str, Any] = {"lengths": (24,), "ratios": (4.0,), "samples": 3, "greedy": 2}
    rows = {row["kind"]: row for row in run(RandomText(**grid)).rows}
    assert list(rows) == ["normal", "patterned", "random"]
    own = next(r for r in run(Reconstruction(**grid)).rows if r["kind"] == "own")
    for key in ("ae_loss", "accuracy", "bleu", "bleu_median", "prefix_share"):
        assert rows["normal"][key] == pytest.approx(own[key])
    assert rows["random"]["ae_loss"] != pytest.approx(own["ae_loss"])
