from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.evals import Memorisation
from icae.evals.memorisation import error_figures
from icae.evals.word_errors import (
    CLASSES,
    EmbeddingLikeness,
    Pair,
    aligned,
    split_words,
    text_type,
)

SYNONYMS = {frozenset(pair) for pair in (("big", "large"), ("began", "started"))}


def thesaurus(true: Sequence[str], written: Sequence[str]) -> Any:
    """Knows two pairs."""
    found = [[frozenset((a, b)) in SYNONYMS for b in written] for a in true]
    return np.array(found, dtype=bool).reshape(len(true), len(written))


def align(true: str, written: str) -> list[Pair]:
    return aligned(split_words(true), split_words(written), thesaurus)


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
        ("like meaning", "big", "large"),
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


def slow_cost(true: tuple[str, ...], written: tuple[str, ...]) -> float:
    """The same price list, by plain recursion."""

    @functools.cache
    def cost(i: int, j: int) -> float:
        if not i or not j:
            return 0.75 * (i + j)
        a, b = true[i - 1], written[j - 1]
        pair = 0.0 if a == b else 0.5 if frozenset((a, b)) in SYNONYMS else 1.0
        return min(cost(i - 1, j - 1) + pair, cost(i - 1, j) + 0.75, cost(i, j - 1) + 0.75)

    return cost(len(true), len(written))


def price(pair: Pair) -> float:
    table = {None: 0.0, "like meaning": 0.5, "form": 0.5, "omission": 0.75, "insertion": 0.75}
    return table.get(pair.error, 1.0)


WORDS = st.lists(st.sampled_from(["big", "large", "began", "started", "rain"]), max_size=7)


@settings(max_examples=60, deadline=None)
@given(true=WORDS, written=WORDS)
def test_alignment_is_the_cheapest_and_uses_every_word_once(
    true: list[str], written: list[str]
) -> None:
    pairs = align(" ".join(true), " ".join(written))
    assert [p.true.text for p in pairs if p.true] == true
    assert [p.written.text for p in pairs if p.written] == written
    assert sum(map(price, pairs)) == pytest.approx(slow_cost(tuple(true), tuple(written)))
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


def test_likeness_is_the_cosine_of_centred_embeddings(engine: Any) -> None:
    weight = engine.runtime.model.decoder.get_input_embeddings().weight.detach()
    words = ["rain", "nets", "town", "lamp", "other", "men"]
    likeness = EmbeddingLikeness(engine.tokenizer, weight, words, seed=0)

    def unit(word: str) -> Any:
        ids = engine.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        vector = weight.numpy()[ids].mean(axis=0) - weight.numpy().mean(axis=0)
        return vector / np.linalg.norm(vector)

    found = likeness.alike(["rain", "Rain"], ["rain", "nets"])
    assert found[:, 0].tolist() == [True, True]
    assert found[0, 1] == (float(unit("rain") @ unit("nets")) > likeness.threshold)
    assert likeness.alike([], ["rain"]).shape == (0, 1)
    others = [float(unit(a) @ unit(b)) for a in words for b in words if a != b]
    assert min(others) <= likeness.threshold <= max(others) + 1e-6
    for word in ("the", "from", "x" * 30):  # grammar, and what is no word
        assert not likeness.alike([word], [word]).any()


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
