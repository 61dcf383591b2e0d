from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from icae.errors import ConfigError
from icae.evals import Memorisation
from icae.evals.memorisation import Aligned, error_figures
from icae.evals.word_errors import CLASSES, aligned, split_words


def nothing(true: Any, written: Any) -> Any:
    """No word is like another."""
    return np.zeros((len(true), len(written)), dtype=bool)


def text(true: str, written: str) -> Aligned:
    a, b = split_words(true), split_words(written)
    return Aligned(true=a, written=b, pairs=aligned(a, b, nothing))


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icae.evals.bootstrap.RESAMPLES", 20)


def test_figures_are_those_of_a_hand_computed_case() -> None:
    texts = [
        text("in 1974 and 1975 it rained here", "in 1974 and 1977 it snowed"),  # 4 of 7 right
        text("it was dry", "it was dry"),  # 3 of 3
    ]
    figures = error_figures(texts, seed=0)
    assert figures["right"]["value"] == pytest.approx(7 / 10)
    assert figures["number_right"]["value"] == pytest.approx(1 / 2)
    assert figures["name_right"] is None
    assert figures["number"]["value"] == pytest.approx(10.0)
    assert figures["other"]["value"] == pytest.approx(10.0)
    assert figures["omission"]["value"] == pytest.approx(10.0)
    assert figures["insertion"]["value"] == 0
    # Quarters of 7 words: 2, 2, 2, 1; of 3 words: 1, 1, 1, 0.
    right = [figures[f"quarter_{n}"]["value"] for n in (1, 2, 3, 4)]
    assert right == pytest.approx([3 / 3, 2 / 3, 2 / 3, 0 / 1])
    assert figures["per_context"]["right"] == pytest.approx([4 / 7, 1.0])


def test_a_run_has_a_row_for_all_texts_and_for_each_type(run: Any) -> None:
    settings = Memorisation(lengths=(16,), ratios=(4.0,), samples=4, examples=1)
    finished = run(settings)
    kinds = [row["kind"] for row in finished.rows]
    assert kinds[0] == "all"
    assert finished.rows[0]["samples"] == 4
    assert sum(row["samples"] for row in finished.rows[1:]) == 4
    assert finished.rows[0]["examples"] == []
    assert len(finished.rows[1]["examples"]) == 1
    for row in finished.rows:
        lost = sum(row[c.replace(" ", "_")]["value"] for c in CLASSES if c != "insertion")
        assert lost + 100 * row["right"]["value"] == pytest.approx(100)
    errors = {error for error, _, _ in finished.rows[1]["examples"][0]["pairs"]}
    assert errors <= {None, *CLASSES}


def test_a_number_of_examples_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="examples"):
        Memorisation(lengths=(16,), ratios=(4.0,), examples=-1)
