"""Writing back: held-out text, and text that is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch

from icae.decode.prefix import Prefix
from icae.evals import RandomText, Reconstruction
from icae.evals.random_text import make_text, ordinary_ids
from icae.model.objectives import Sample, autoencoding


def by_kind(rows: Any, length: int, ratio: float | None) -> dict[str, Any]:
    return {r["kind"]: r for r in rows if r["length"] == length and r["ratio"] == ratio}


def test_figures_equal_those_of_the_model_itself(
    run: Any, engine: Any, windows: Callable[..., Any], settings: Any
) -> None:
    own = by_kind(run(settings).rows, 16, 4.0)["own"]

    contexts = [window.ids[-16:] for window in windows(24, 4)]
    payloads = engine.runtime.encode(contexts, [4] * 4)
    with torch.no_grad():
        scores = engine.runtime.model(
            [Sample(context_ids=ids, ratio=4.0, tasks=(autoencoding(ids),)) for ids in contexts]
        )
    shares = [float(score.correct_T.float().mean()) for score in scores]
    losses = [float(score.loss_sum) / 16 for score in scores]
    assert own["per_context"]["accuracy"] == pytest.approx(shares)
    assert own["accuracy"]["value"] == pytest.approx(np.mean(shares))
    assert own["ae_loss"]["value"] == pytest.approx(np.mean(losses), abs=1e-4)
    prefixes = [Prefix.of_payload(p, tokens=16, objective="ae") for p in payloads[:2]]
    texts = [engine.tokenizer.decode(list(i)) for i in engine.runtime.write_back(prefixes)]
    true = [engine.tokenizer.decode(ids.tolist()) for ids in contexts[:2]]
    assert own["bleu"]["value"] == pytest.approx(sacrebleu.corpus_bleu(texts, [true]).score)


def test_every_length_and_ratio_stands_beside_its_baselines(run: Any, settings: Any) -> None:
    rows = run(settings).rows
    assert [(r["length"], r["ratio"], r["kind"]) for r in rows] == [
        (length, ratio, kind)
        for length in (16, 24)
        for ratio in (None, 2.0, 4.0)
        for kind in (["own", "of another text"] if ratio else ["none"])
    ]
    assert [r["slots"] for r in rows] == [0, 8, 8, 4, 4, 0, 12, 12, 6, 6]
    for row in rows:
        assert row["samples"] == 4
        assert row["ae_loss"]["low"] <= row["ae_loss"]["value"] <= row["ae_loss"]["high"]
        assert ("bleu" in row) == (row["kind"] != "none")


def test_one_context_written_back_has_no_other_to_compare(run: Any) -> None:
    settings = Reconstruction(lengths=(16,), ratios=(2.0,), samples=2, greedy=1)
    rows = by_kind(run(settings).rows, 16, 2.0)
    assert "bleu" in rows["own"]
    assert "bleu" not in rows["of another text"]


ORDINARY = np.array([0, 1, 2, 4, 5])


def test_patterned_text_is_the_next_id_of_each_without_special_tokens(tokenizer: Any) -> None:
    (made,) = make_text("patterned", [np.array([0, 1, 2, 5])], ORDINARY, seed=0)
    assert made.tolist() == [1, 2, 4, 0]
    ids = ordinary_ids(tokenizer)
    assert len(ids) == len(tokenizer) - len(tokenizer.all_special_ids)
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_random_text_has_the_same_lengths_and_depends_on_the_seed() -> None:
    contexts = [np.zeros(50, np.int64), np.zeros(7, np.int64)]
    made, again, other = (make_text("random", contexts, ORDINARY, seed=n) for n in (1, 1, 2))
    assert [len(ids) for ids in made] == [50, 7]
    assert set(np.concatenate(made)) == set(ORDINARY)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    assert not np.array_equal(made[0], other[0])


def test_normal_text_scores_as_in_reconstruction(run: Any) -> None:
    grid: dict[str, Any] = {"lengths": (24,), "ratios": (4.0,), "samples": 3, "greedy": 2}
    rows = {row["kind"]: row for row in run(RandomText(**grid)).rows}
    assert list(rows) == ["normal", "patterned", "random"]
    own = by_kind(run(Reconstruction(**grid)).rows, 24, 4.0)["own"]
    for key in ("ae_loss", "accuracy", "bleu", "bleu_median", "prefix_share"):
        assert rows["normal"][key] == pytest.approx(own[key])
    assert rows["random"]["ae_loss"] != pytest.approx(own["ae_loss"])
