import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.data import words
from icae.data.words import hash_words, locate_words, ngram_hashes, text_key, uniform

TEXTS = st.text(max_size=60) | st.text(alphabet="ab Ä.-_7中\n", max_size=60)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_words_are_found_where_a_regular_expression_finds_them(text):
    _, starts, ends = locate_words(text)
    found = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    assert found == re.findall(r"\w+", text)


@settings(max_examples=50, deadline=None)
@given(TEXTS)
def test_long_texts_hash_the_same_in_blocks(text):
    whole = hash_words(text)
    before, words._BLOCK = words._BLOCK, 3
    try:
        assert hash_words(text).tolist() == whole.tolist()
    finally:
        words._BLOCK = before


def test_case_and_punctuation_do_not_count():
    assert hash_words("Übung,  macht\nden MEISTER!").tolist() == (
        hash_words("übung macht den “Meister”").tolist()
    )


def test_different_words_have_different_hashes_and_their_order_counts():
    found = hash_words(" ".join(f"w{i}" for i in range(50_000)))
    assert len(np.unique(found)) == 50_000
    assert text_key(found[:2]).tolist() != text_key(found[1::-1]).tolist()


def test_hashes_are_the_same_in_every_process():
    assert hash_words("Hello wörld").tolist() == [17087129923793103246, 7196982364381935477]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(1, 4))
def test_ngrams_are_equal_exactly_where_their_words_are(letters, n):
    hashes = ngram_hashes(hash_words(" ".join(letters)), n).tolist()
    grams = [tuple(letters[i : i + n]) for i in range(len(letters) - n + 1)]
    assert len(hashes) == len(grams)
    assert [[a == b for a in hashes] for b in hashes] == [[a == b for a in grams] for b in grams]


def test_numbers_are_spread_evenly_and_differ_by_seed_and_purpose():
    keys = np.stack([text_key(hash_words(f"text {i}")) for i in range(2000)])
    numbers = uniform(keys, seed=0, purpose="x")
    assert 0 <= numbers.min() <= numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.03
    for other in (uniform(keys, seed=1, purpose="x"), uniform(keys, seed=0, purpose="y")):
        assert abs(np.corrcoef(numbers, other)[0, 1]) < 0.1
