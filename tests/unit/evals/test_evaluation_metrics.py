from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu

from icae.errors import InputError, MissingDependencyError
from icae.evals import metrics
from icae.evals.metrics import (
    bleu_counts,
    bleu_signature,
    corpus_bleu,
    corpus_bleu_estimate,
    mean_estimate,
    median_estimate,
    perplexity_estimate,
    prefix_share,
    sentence_bleu,
)

TRUE = (
    "The lighthouse was built in 1861, from granite.",
    "It is forty-eight metres tall and can be seen from far away.",
    "Supplies came by boat twice a year.",
)
WRITTEN = (
    "The lighthouse was built in 1816 from granite.",
    "It is forty metres tall and can be seen far away.",
    "No boat came.",
)


def test_bleu_of_identical_text_is_100() -> None:
    counts = [bleu_counts(text, text) for text in TRUE]
    assert corpus_bleu(counts) == pytest.approx(100)
    assert sentence_bleu(TRUE[0], TRUE[0]) == pytest.approx(100)
    estimate = corpus_bleu_estimate(counts, seed=0)
    assert (estimate.low, estimate.high) == pytest.approx((100, 100))


def test_corpus_bleu_from_counts_equals_sacrebleu() -> None:
    counts = [bleu_counts(w, t) for w, t in zip(WRITTEN, TRUE, strict=True)]
    expected = sacrebleu.corpus_bleu(list(WRITTEN), [list(TRUE)]).score
    assert corpus_bleu(counts) == pytest.approx(expected, abs=1e-9)
    assert 0 < expected < 100


def test_corpus_bleu_of_one_pair_equals_a_hand_computed_one() -> None:
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 fours match; equal lengths.
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert corpus_bleu([bleu_counts("a b c d x", "a b c d e")]) == pytest.approx(expected)


def test_resampled_corpus_bleu_stays_around_the_whole() -> None:
    counts = [bleu_counts(w, t) for w, t in zip(WRITTEN, TRUE, strict=True)]
    estimate = corpus_bleu_estimate(counts, seed=3)
    assert estimate.low < estimate.value < estimate.high
    assert estimate == corpus_bleu_estimate(counts, seed=3)


def test_empty_text_scores_nothing() -> None:
    assert corpus_bleu([bleu_counts("", TRUE[0])]) == 0
    assert sentence_bleu("", TRUE[0]) == 0


def test_counting_says_nothing_on_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bleu_counts("a . b", "a . c")
    sentence_bleu("a . b", "a . c")
    assert not caplog.records


def test_signature_names_tokenizer_and_version() -> None:
    assert "tok:13a" in bleu_signature()
    assert sacrebleu.__version__ in bleu_signature()


@pytest.mark.parametrize(
    ("written", "true", "share"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 9, 4], [1, 2, 3, 4], 0.5),
        ([9, 2, 3, 4], [1, 2, 3, 4], 0.0),
        ([1, 2], [1, 2, 3, 4], 0.5),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], 1.0),
        ([], [1], 0.0),
    ],
)
def test_prefix_share_ends_at_the_first_error(written, true, share) -> None:
    assert prefix_share(written, true) == share


def test_intervals_cover_a_known_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        estimate = mean_estimate(rng.normal(3.0, 2.0, 40), seed=seed)
        covered += estimate.low <= 3.0 <= estimate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_interval_of_a_mean_is_close_to_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(size=400)
    estimate = mean_estimate(values, seed=0)
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.015)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.015)


def test_intervals_depend_on_the_seed_only() -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    assert mean_estimate(values, seed=5) == mean_estimate(values, seed=5)
    assert mean_estimate(values, seed=5) != mean_estimate(values, seed=6)


def test_one_value_is_its_own_interval() -> None:
    estimate = mean_estimate([2.5], seed=0)
    assert (estimate.value, estimate.low, estimate.high) == (2.5, 2.5, 2.5)


def test_median_is_the_middle_value() -> None:
    assert median_estimate([1.0, 2.0, 90.0], seed=0).value == 2.0


def test_perplexity_is_exp_of_the_mean_loss() -> None:
    estimate = perplexity_estimate([1.0, 3.0], seed=0)
    assert estimate.value == pytest.approx(math.exp(2.0))
    assert estimate.low == pytest.approx(math.exp(1.0))
    assert estimate.high == pytest.approx(math.exp(3.0))


def test_ratio_of_perplexities_is_paired() -> None:
    full = np.array([1.0, 5.0, 3.0])
    estimate = perplexity_estimate((full + 0.5) - full, seed=0)
    assert (estimate.low, estimate.high) == pytest.approx((math.exp(0.5), math.exp(0.5)))


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(InputError, match="nothing to average"):
        mean_estimate([], seed=0)


def test_missing_sacrebleu_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(MissingDependencyError, match=r"icae\[eval\]"):
        metrics.bleu_counts("a", "a")
