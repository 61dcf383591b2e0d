from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch

from icae.decode.prefix import Prefix
from icae.errors import ConfigError, InputError
from icae.evals import Reconstruction
from icae.evals.contexts import draw_windows, read_documents
from icae.model import Sample
from icae.model.objectives import autoencoding


def by_kind(rows: Any, length: int, ratio: float | None) -> dict[str, Any]:
    return {r["kind"]: r for r in rows if r["length"] == length and r["ratio"] == ratio}


def test_figures_equal_those_of_the_engine_itself(
    run: Any, engine: Any, corpus: Path, settings: Any
) -> None:
    rows = run(settings).rows
    own = by_kind(rows, 16, 4.0)["own"]

    documents = read_documents([corpus], engine.tokenizer)
    windows = draw_windows(documents, size=24, samples=4, seed=0).windows
    contexts = [window.ids[-16:] for window in windows]
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
    prefixes = [
        Prefix.of_payload(own, tokens=16, objective="ae") for own in payloads[: settings.greedy]
    ]
    written = engine.runtime.write_back(prefixes)
    texts = [engine.tokenizer.decode(list(ids)) for ids in written]
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


@pytest.mark.parametrize(
    "wrong",
    [
        {"lengths": ()},
        {"lengths": (1,)},
        {"ratios": ()},
        {"ratios": (0.5,)},
        {"samples": 1, "greedy": 0},
        {"greedy": 5},
        {"greedy": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"lengths": (16,), "ratios": (2.0,), "samples": 4, "greedy": 2}
    with pytest.raises(ConfigError):
        Reconstruction(**{**good, **wrong})


def test_a_length_beyond_the_decoder_is_refused(run: Any) -> None:
    settings = Reconstruction(lengths=(150,), ratios=(2.0,), samples=2, greedy=0)
    with pytest.raises(InputError, match="does not fit the decoder") as caught:
        run(settings)
    assert caught.value.expected == "at most 256"
