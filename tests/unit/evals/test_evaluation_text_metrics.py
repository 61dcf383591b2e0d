"""Metrics of written text against cases worked out by hand, and against a second implementation."""

from __future__ import annotations

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
    ("text", "expected"),
    [
        ("The  Cat, a dog; an OWL!", "cat dog owl"),
        ("theatre of another day", "theatre of another day"),
        ("U.S. dollars", "us dollars"),
        ("the", ""),
        ("1,000", "1000"),
    ],
)
def test_normalisation_follows_squad(text: str, expected: str) -> None:
    assert normalised(text) == expected


@pytest.mark.parametrize(
    ("written", "references", "expected"),
    [
        ("The Broncos.", ["Denver", "broncos"], 1.0),
        ("Denver Broncos", ["Denver", "broncos"], 0.0),
        ("", ["the"], 1.0),
        ("", ["cat"], 0.0),
    ],
)
def test_exact_match_needs_one_equal_reference(
    written: str, references: list[str], expected: float
) -> None:
    assert exact_match(written, references) == expected


@pytest.mark.parametrize(
    ("written", "references", "expected"),
    [
        # 2 words common; precision 2/4, recall 2/2.
        ("It was Cam Newton", ["Cam Newton"], 2 / 3),
        # The second reference is the better one: precision 1/4, recall 1/1 -> 0.4; against
        # the first: 2 common, precision 2/4, recall 2/5 -> 4/9.
        ("It was Cam Newton", ["Cam Newton won in 2015", "Cam"], 4 / 9),
        # A word counts as often as it stands in both: 1 common of 3 and 2.
        ("no no no", ["no way"], 0.4),
        ("Paris", ["London"], 0.0),
        ("the", ["a"], 1.0),
        ("the", ["cat"], 0.0),
    ],
)
def test_f1_is_that_of_words_and_of_the_best_reference(
    written: str, references: list[str], expected: float
) -> None:
    assert token_f1(written, references) == pytest.approx(expected)


def test_rouge_by_hand() -> None:
    # Words: the cat sat on the mat (6) and the cat lay on a mat (6).
    scores = rouge_f1("The cat sat on the mat.", ["the cat lay on a mat"])
    assert scores["rouge1"] == pytest.approx(4 / 6)  # the, cat, on, mat
    assert scores["rouge2"] == pytest.approx(1 / 5)  # the cat
    assert scores["rougeL"] == pytest.approx(4 / 6)  # the cat on mat


def test_each_rouge_figure_takes_its_own_best_reference() -> None:
    references = ["d c b a", "a b x y z w"]
    scores = rouge_f1("a b c d", references)
    assert scores["rouge1"] == pytest.approx(1.0)  # the first holds the same words
    assert scores["rouge2"] == pytest.approx(2 * (1 / 3) * (1 / 5) / (1 / 3 + 1 / 5))


def test_missing_rouge_score_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rouge_score.rouge_scorer", None)
    text_metrics._rouge.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"icae\[eval\]"):
        rouge_f1("a", ["a"])
    text_metrics._rouge.cache_clear()


@pytest.mark.parametrize(
    ("text", "empty"), [("", True), (" .\n", True), ("no", False), ("7", False)]
)
def test_an_answer_without_letter_or_digit_is_empty(text: str, empty: bool) -> None:
    assert is_empty(text) is empty


@pytest.mark.parametrize(
    ("text", "stuck"),
    [
        ("no no no no no no", True),
        ("no no no no no", False),
        ("It is. It is. It is not", False),
        ("well, of the year of the year of the year", True),
        ("of the year of the year and so on", False),
        ("one two three four one two three four", False),
        ("1.1.1.1", True),
        ("first a b c d e f. first a b c d e f. first a b c d e f.", True),
        ("a b c d", False),
        ("", False),
    ],
)
def test_a_phrase_three_times_in_a_row_is_repeating(text: str, stuck: bool) -> None:
    assert is_repeating(text) is stuck


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


def test_bleu_of_identical_text_is_100_and_of_none_0() -> None:
    figure = bleu_figure([(text, text) for text in TRUE], seed=0)
    assert tuple(figure.values()) == pytest.approx((100, 100, 100))
    assert sentence_bleu(TRUE[0], TRUE[0]) == pytest.approx(100)
    assert bleu_figure([("", TRUE[0])], seed=0)["value"] == sentence_bleu("", TRUE[0]) == 0


def test_corpus_bleu_equals_sacrebleu_and_has_an_interval(caplog: pytest.LogCaptureFixture) -> None:
    pairs = list(zip(WRITTEN, TRUE, strict=True))
    figure = bleu_figure(pairs, seed=3)
    expected = sacrebleu.corpus_bleu(list(WRITTEN), [list(TRUE)]).score
    assert figure["value"] == pytest.approx(expected, abs=1e-9)
    assert figure["low"] < figure["value"] < figure["high"]
    assert figure == bleu_figure(pairs, seed=3)
    sentence_bleu("a . b", "a . c")
    assert not caplog.records


def test_bleu_of_one_pair_equals_a_hand_computed_one() -> None:
    # 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 fours match; equal lengths.
    expected = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert bleu_figure([("a b c d x", "a b c d e")], seed=0)["value"] == pytest.approx(expected)


def test_bleu_signature_names_tokenizer_and_version() -> None:
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


def test_missing_sacrebleu_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(MissingDependencyError, match=r"icae\[eval\]"):
        bleu_figure([("a", "a")], seed=0)
