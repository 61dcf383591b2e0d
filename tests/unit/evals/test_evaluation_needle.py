from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from icae.errors import InputError
from icae.evals import NeedleMap
from icae.evals.needle import PLANTED, common_words, key_values, planted, said
from icae.evals.respondents import found_in

GRID: dict[str, Any] = {"lengths": (64,), "ratios": (4.0,), "samples": 2, "max_new_tokens": 2}
TEXT = "One two. Three four! Five six seven. Eight nine ten."


def test_sentences_stand_at_their_depths_and_equally_deep_ones_in_order() -> None:
    assert planted(TEXT, [(0.0, "A.")]) == f"A. {TEXT}"
    assert planted(TEXT, [(1.0, "A."), (1.0, "B.")]) == f"{TEXT} A. B."
    halves = "One two. Three four! A. Five six seven. B. Eight nine ten."
    assert planted(TEXT, [(0.75, "B."), (0.5, "A.")]) == halves
    assert planted("no end of a sentence", [(0.9, "A.")]) == "A. no end of a sentence"


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_wanted_stands_in_the_text_and_comes_from_the_seed(kind: str) -> None:
    needle, same = (PLANTED[kind](np.random.default_rng(3), 0.5) for _ in range(2))
    assert needle == same != PLANTED[kind](np.random.default_rng(4), 0.5)
    assert needle.sentences[0][0] == 0.5
    assert said(planted(TEXT, needle.sentences), needle.wanted) == 1.0


def test_key_at_a_depth_is_asked_for_and_common_words_are_the_commonest() -> None:
    rng = np.random.default_rng(0)
    for depth, line in ((0.0, 0), (0.5, 2), (1.0, 4)):
        text, needle = key_values(rng, depth, 5)
        key, value = text.splitlines()[line].split(": ")
        assert (key in needle.prompt, needle.wanted) == (True, (value,))
    text, needle = common_words(rng, "alpha beta gamma delta omega zeta theta iota kappa", 60)
    counts = {word: text.split(", ").count(word) for word in set(text.split(", "))}
    assert set(sorted(counts, key=lambda w: counts[w])[-3:]) == set(needle.wanted)


def test_an_answer_is_scored_by_the_wanted_strings_in_it() -> None:
    assert said("It is 4,821,973.", ("4821973",)) == 1.0
    assert said("It is 14821973.", ("4821973",)) == 0.0
    assert said("irene  HOLLOWAY!", ("Irene Holloway",)) == 1.0
    assert said("XKCD and ABCD", ("ABCD", "XYZZ")) == 0.5


def test_kinds_and_readers_are_measured_by_depth(run: Any) -> None:
    readers = ("full context", "memory", "faithful memory", "store search", "first tokens")
    who = {"kinds": ("keys", "words"), "readers": readers, "min_fidelity": 0.1}
    settings = NeedleMap(**GRID, **who, depths=(0.0, 1.0))
    finished = run(settings)
    assert len(finished.rows) == 2 * len(readers)
    assert {row["dataset"] for row in finished.rows} == {"keys", "words"}
    for row in finished.rows:
        listed = row["dataset"] == "words"
        assert row["depths"] == ([None] if listed else [0.0, 1.0])
        assert row["questions"] == len(row["per_question"]["answer"]) == (2 if listed else 4)
        assert (row["ratio"] is None) == (row["kind"] in ("full context", "faithful memory"))
        assert row["by_depth"] == pytest.approx(
            np.reshape(row["per_question"]["found"], (2, -1)).mean(axis=0)
        )
    total = finished.tables[1].rows
    assert {row["kind"] for row in total} == set(readers)
    assert all(row["of_full"] is None or row["found"]["value"] > 0 for row in total)


def test_a_store_finds_the_passage_with_the_words_of_the_question(engine: Any) -> None:
    words = "the lamp of a harbour town turned in the rain over men and nets. "
    text = words * 8 + "The owner of the anchor is Irene. " + words * 8
    (memory,) = engine.compress_many([text], ratio=4, verify=False)
    found = found_in(memory, "Who is the owner of the anchor?")
    read = "".join(document.source or "" for document in found.documents)
    assert "owner" in read or "anchor" in read
    assert len(found.spans) < len(memory.spans)
    assert found_in(memory, "xylophone") is memory


def test_a_text_that_is_no_longer_than_its_needle_is_refused(run: Any) -> None:
    with pytest.raises(InputError, match="too long for the text"):
        run(NeedleMap(**{**GRID, "lengths": (8,)}, kinds=("uuid",)))


def test_a_map_is_drawn_for_every_series() -> None:
    from icae.evals.plots import picture

    rows = [
        {"series": reader, "ratio": None, "length": n, "depths": depths, "by_depth": shares}
        for reader in ("memory", "full context")
        for n, depths, shares in ((64, [0.0, 1.0], [1.0, 0.5]), (64, [None], [0.0]))
    ]
    assert picture(rows, NeedleMap.plots, title="x").startswith(b"\x89PNG")
