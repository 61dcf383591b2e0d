"""Metrics of written text against cases worked out by hand, and against a second implementation."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import sacrebleu

from icae.errors import MissingDependencyError
from icae.evals import text_metrics
from icae.evals.text_metrics import (
    bleu_figure,
    bleu_signature,
    exact_match,
    is_empty,
    is_repeating,
    normalised,
    prefix_share,
    rouge_f1,
    sentence_bleu,
    token_f1,
)


@pytest.mark.parametrize(
    ("metric", "arguments", "expected"),
    [
        (normalised, ("The  Cat, a dog; an OWL!",), "cat dog owl"),
        (normalised, ("theatre of another day",), "theatre of another day"),
        (normalised, ("U.S. dollars",), "us dollars"),
        (normalised, ("the",), ""),
        (normalised, ("1,000",), "1000"),
        (exact_match, ("The Broncos.", ["Denver", "broncos"]), 1.0),
        (exact_match, ("Denver Broncos", ["Denver", "broncos"]), 0.0),
        (exact_match, ("", ["the"]), 1.0),
        (exact_match, ("", ["cat"]), 0.0),
        # 2 words common; precision 2/4, recall 2/2.
        (token_f1, ("It was Cam Newton", ["Cam Newton"]), 2 / 3),
        # The second reference is the better one: precision 1/4, recall 1/1 -> 0.4; against
        # the first: 2 common, precision 2/4, recall 2/5 -> 4/9.
        (token_f1, ("It was Cam Newton", ["Cam Newton won in 2015", "Cam"]), 4 / 9),
        # A word counts as often as it stands in both: 1 common of 3 and 2.
        (token_f1, ("no no no", ["no way"]), 0.4),
        (token_f1, ("Paris", ["London"]), 0.0),
        (token_f1, ("the", ["a"]), 1.0),
        (token_f1, ("the", ["cat"]), 0.0),
        (prefix_share, ([1, 2, 3, 4], [1, 2, 3, 4]), 1.0),
        (prefix_share, ([1, 2, 9, 4], [1, 2, 3, 4]), 0.5),
        (prefix_share, ([9, 2, 3, 4], [1, 2, 3, 4]), 0.0),
        (prefix_share, ([1, 2], [1, 2, 3, 4]), 0.5),
        (prefix_share, ([1, 2, 3, 4, 5], [1, 2, 3, 4]), 1.0),
        (prefix_share, ([], [1]), 0.0),
        *(
            (is_empty, (text,), empty)
            for text, empty in (("", 1), (" .\n", 1), ("no", 0), ("7", 0))
        ),
        *((is_repeating, (text,), False) for text in ("a b c d", "", "no no no no no")),
        (is_repeating, ("no no no no no no",), True),
        (is_repeating, ("It is. It is. It is not",), False),
        (is_repeating, ("well, of the year of the year of the year",), True),
        (is_repeating, ("of the year of the year and so on",), False),
        (is_repeating, ("one two three four one two three four",), False),
        (is_repeating, ("1.1.1.1",), True),
        (is_repeating, ("first a b c d e f. first a b c d e f. first a b c d e f.",), True),
    ],
)
def test_hand_computed_cases(metric: Any, arguments: Any, expected: Any) -> None:
    found = metric(*arguments)
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_rouge_by_hand_and_by_the_best_reference_of_each() -> None:
    # Words: the cat sat on the mat (6) and the cat lay on a mat (6).
    scores = rouge_f1("The cat sat on the mat.", ["the cat lay on a mat"])
    assert scores["rouge1"] == pytest.approx(4 / 6)  # the, cat, on, mat
    assert scores["rouge2"] == pytest.approx(1 / 5)  # the cat
    assert scores["rougeL"] == pytest.approx(4 / 6)  # the cat on mat
    scores = rouge_f1("a b c d", ["d c b a", "a b x y z w"])
    assert scores["rouge1"] == pytest.approx(1.0)  # the first holds the same words
    assert scores["rouge2"] == pytest.approx(2 * (1 / 3) * (1 / 5) / (1 / 3 + 1 / 5))


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


def test_bleu_of_identical_text_is_100_of_none_0_and_of_one_pair_a_hand_computed_one() -> None:
    figure = bleu_figure([(text, text) for text in TRUE], seed=0)
    assert tuple(figure.values()) == pytest.approx((100, 100, 100))
    assert sentence_bleu(TRUE[0], TRUE[0]) == pytest.approx(100)
    assert bleu_figure([("", TRUE[0])], seed=0)["value"] == sentence_bleu("", TRUE[0]) == 0
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 fours match; equal lengths.
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu_figure([("a b c d x", "a b c d e")], seed=0)["value"] == pytest.approx(expected)


def test_corpus_bleu_equals_sacrebleu_and_has_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    pairs = list(zip(WRITTEN, TRUE, strict=True))
    figure = bleu_figure(pairs, seed=3)
    expected = sacrebleu.corpus_bleu(list(WRITTEN), [list(TRUE)]).score
    assert figure["value"] == pytest.approx(expected, abs=1e-9)
    assert figure["low"] < figure["value"] < figure["high"]
    assert figure == bleu_figure(pairs, seed=3)
    sentence_bleu("a . b", "a . c")
    assert not caplog.records
    assert "tok:13a" in bleu_signature()
    assert sacrebleu.__version__ in bleu_signature()


@pytest.mark.parametrize(
    ("package", "measure"),
    [
        ("sacrebleu", lambda: bleu_figure([("a", "a")], seed=0)),
        ("rouge_score.rouge_scorer", lambda: rouge_f1("a", ["a"])),
    ],
)
def test_a_missing_package_is_reported(
    monkeypatch: pytest.MonkeyPatch, package: str, measure: Any
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    text_metrics._rouge.cache_clear()
    with pytest.raises(MissingDependencyError, match="Evaluation needs"):
        measure()
    text_metrics._rouge.cache_clear()
