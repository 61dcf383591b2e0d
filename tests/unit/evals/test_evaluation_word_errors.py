from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def errors(true: str, written: str) -> list[tuple[str | None, str, str]]:
    a, b = split_words(true), split_words(written)
    return [
        (
            pair.error,
            "" if pair.true is None else a[pair.true].text,
            "" if pair.written is None else b[pair.written].text,
        )
        for pair in aligned(a, b, thesaurus)
        if pair.error is not None
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


def test_a_number_out_of_nothing_is_an_error_in_a_number() -> None:
    assert errors("a few men came", "a 300 men came") == [("number", "few", "300")]


def test_equal_texts_have_no_error_and_nothing_is_all_omissions() -> None:
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
    pairs = aligned(split_words(" ".join(true)), split_words(" ".join(written)), thesaurus)
    assert [p.true for p in pairs if p.true is not None] == list(range(len(true)))
    assert [p.written for p in pairs if p.written is not None] == list(range(len(written)))
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


def test_words_of_grammar_and_what_is_no_word_are_like_nothing(engine: Any) -> None:
    weight = engine.runtime.model.decoder.get_input_embeddings().weight
    likeness = EmbeddingLikeness(engine.tokenizer, weight, ["rain", "nets", "town"], seed=0)
    for word in ("the", "from", "x" * 30):
        assert not likeness.alike([word], [word]).any()
