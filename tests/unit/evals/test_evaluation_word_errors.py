from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.evals import Memorisation
from icae.evals.memorisation import error_figures
from icae.evals.word_errors import (
    CLASSES,
    Pair,
    aligned,
    split_words,
    text_type,
)


def align(true: str, written: str) -> list[Pair]:
    return aligned(split_words(true), split_words(written))


def errors(true: str, written: str) -> list[tuple[str | None, str, str]]:
    return [
        (error, a.text if a else "", b.text if b else "")
        for a, b, error in align(true, written)
        if error is not None
    ]


def test_every_class_is_told_in_a_hand_made_case() -> None:
    true = "A big storm hit Perth in 1974 and the town, it seems, slept while run_all ran on"
    back = "A large storm hit Sydney in 1979 and the town it seems wept while run_any ran so on"
    assert errors(true, back) == [
        ("other", "big", "large"),
        ("name", "Perth", "Sydney"),
        ("number", "1974", "1979"),
        ("form", "town,", "town"),
        ("form", "seems,", "seems"),
        ("other", "slept", "wept"),
        ("code", "run_all", "run_any"),
        ("insertion", "", "so"),
    ]
    assert errors("it rained all day long", "it rained day long") == [("omission", "all", "")]
    assert errors("a few men came", "a 300 men came") == [("number", "few", "300")]
    assert errors("the same words here", "the same words here") == []
    assert [e for e, _, _ in errors("two words", "")] == ["omission"] * 2
    assert [e for e, _, _ in errors("", "two words")] == ["insertion"] * 2


WORDS = st.lists(st.sampled_from(["big", "large", "began", "started", "rain"]), max_size=7)


@settings(max_examples=60, deadline=None)
@given(true=WORDS, written=WORDS)
def test_alignment_uses_every_word_once_and_finds_equal_texts_equal(
    true: list[str], written: list[str]
) -> None:
    pairs = align(" ".join(true), " ".join(written))
    assert [p.true.text for p in pairs if p.true] == true
    assert [p.written.text for p in pairs if p.written] == written
    assert (not any(p.error for p in pairs)) == (true == written)
    assert {p.error for p in pairs} <= {None, *CLASSES}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it rained all day and nobody went out to the nets", "prose"),
        ("then Anna met Bruno near the Rhine in cold March rain", "names"),
        ("they sold 12 ewes and 40 lambs for 900 in all", "figures"),
        ("call run_all() and then os.path to list it", "code"),
        ("", "prose"),
    ],
)
def test_text_type_is_what_a_text_mostly_holds(text: str, expected: str) -> None:
    assert text_type(split_words(text)) == expected


def test_figures_are_those_of_a_hand_computed_case(quick: None) -> None:
    texts = [
        align("in 1974 and 1975 it rained here", "in 1974 and 1977 it snowed"),  # 4 of 7 right
        align("it was dry", "it was dry"),  # 3 of 3
    ]
    figures = error_figures(texts, seed=0)
    assert figures["right"]["value"] == pytest.approx(7 / 10)
    assert figures["number_right"]["value"] == pytest.approx(1 / 2)
    assert figures["name_right"] is None
    for error in ("number", "other", "omission"):
        assert figures[error]["value"] == pytest.approx(10.0)
    assert figures["insertion"]["value"] == 0
    # Quarters of 7 words: 2, 2, 2, 1; of 3 words: 1, 1, 1, 0.
    right = [figures[f"quarter_{n}"]["value"] for n in (1, 2, 3, 4)]
    assert right == pytest.approx([3 / 3, 2 / 3, 2 / 3, 0 / 1])
    assert figures["per_context"]["right"] == pytest.approx([4 / 7, 1.0])


def test_a_run_has_a_row_for_all_texts_and_for_each_type(run: Any) -> None:
    rows = run(Memorisation(lengths=(16,), ratios=(4.0,), samples=4, examples=1)).rows
    assert rows[0]["kind"] == "all"
    assert rows[0]["samples"] == sum(row["samples"] for row in rows[1:]) == 4
    assert rows[0]["examples"] == []
    assert len(rows[1]["examples"]) == 1
    for row in rows:
        lost = sum(row[c.replace(" ", "_")]["value"] for c in CLASSES if c != "insertion")
        assert lost + 100 * row["right"]["value"] == pytest.approx(100)
    assert {error for error, _, _ in rows[1]["examples"][0]["pairs"]} <= {None, *CLASSES}
