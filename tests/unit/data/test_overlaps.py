"""Duplicates within a corpus, and overlap with evaluation sets."""

import json
import random
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.data.contamination import (
    NgramIndex,
    decontaminate,
    evaluation_texts,
)
from icae.data.dedup import (
    EXACT,
    KEPT,
    NEAR,
    PERMUTATIONS,
    Sketcher,
    bands_of,
    find_duplicates,
    similarities,
)
from icae.data.words import hash_words, text_key
from icae.errors import InputError, MissingDependencyError


def sketches(texts, seed=0):
    sketcher = Sketcher(seed=seed)
    found = np.array([sketcher(hash_words(text)) for text in texts], dtype=np.uint32)
    return found.reshape(-1, PERMUTATIONS)


def verdicts(texts, **settings):
    keys = np.array([text_key(hash_words(text)) for text in texts], dtype=np.uint64)
    return find_duplicates(keys.reshape(-1, 2), sketches(texts), **settings).tolist()


def story(seed, words=400):
    draw = random.Random(seed)
    return " ".join(f"word{draw.randrange(5000)}" for _ in range(words))


def changed(text, every):
    return " ".join(f"new{i}" if i % every == 0 else w for i, w in enumerate(text.split()))


def test_exact_duplicates_go_whatever_their_case_and_spacing():
    text = story(0)
    texts = [text, "other text", text.upper().replace(" ", "\n"), text]
    assert verdicts(texts) == [KEPT, KEPT, EXACT, EXACT]
    assert verdicts(["one two", "one three", "One, two!"]) == [KEPT, KEPT, EXACT]
    assert verdicts([]) == []


def test_first_of_near_duplicates_stays_among_others():
    texts = [*map(story, range(30)), changed(story(1), 200)]
    assert verdicts(texts) == [KEPT] * 30 + [NEAR]


@pytest.mark.parametrize(
    ("every", "threshold", "verdict"),
    [(2, 0.8, KEPT), (10, 0.8, KEPT), (40, 0.95, KEPT), (40, 0.6, NEAR)],
)
def test_shared_wording_counts_from_the_threshold_on(every, threshold, verdict):
    texts = [story(0), changed(story(0), every)]
    assert verdicts(texts, threshold=threshold) == [KEPT, verdict]


def test_what_is_similar_to_a_dropped_document_only_is_kept():
    text = story(0, 1000)
    chain = [text, changed(text, 60), changed(changed(text, 60), 47)]
    signatures = sketches(chain)
    kept = [i for i, verdict in enumerate(verdicts(chain, threshold=0.8)) if verdict == KEPT]
    assert kept[0] == 0
    assert all(similarities(signatures, b, [a])[0] < 0.8 for a, b in pairwise(kept))


def test_signature_estimates_the_jaccard_similarity_and_follows_the_seed():
    texts = [" ".join(f"w{i}" for i in range(*ends)) for ends in ((0, 3000), (1000, 4000))]
    signatures = sketches(texts, seed=3)
    assert similarities(signatures, 0, [1])[0] == pytest.approx(0.5, abs=0.15)
    assert sketches(texts, seed=3).tolist() == signatures.tolist()
    assert sketches(texts, seed=4).tolist() != signatures.tolist()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold):
    bands, rows = bands_of(threshold)
    assert bands * rows <= 64
    assert 1 - (1 - threshold**rows) ** bands >= 0.95


def test_missing_datasketch_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        Sketcher(seed=0)


def words(name, count):
    return " ".join(f"{name}{i}" for i in range(count))


SECRET = words("secret", 20)


def check(text, *secrets, n=12):
    return decontaminate(text, hash_words(text), NgramIndex(secrets, n=n))


def test_paragraph_around_an_overlap_is_cut_and_the_document_split():
    text = f"{words('a', 40)}\n\nBefore it {SECRET.upper()}, after it.\n\n{words('b', 40)}"
    left = check(text, SECRET)
    assert left.parts == (words("a", 40), words("b", 40))
    assert left.overlaps == 1
    assert left.characters_removed == len(text) - len(words("a", 40) + words("b", 40)) - 4


def test_twelve_words_are_an_overlap_and_eleven_are_not():
    inside = " ".join(SECRET.split()[3:15])
    text = f"{words('a', 30)}\n{inside}\n{words('b', 30)}"
    assert check(text, SECRET).overlaps == 1
    less = text.replace(inside, inside[: inside.rindex(" ")])
    assert (check(less, SECRET).parts, check(less, SECRET).characters_removed) == ((less,), 0)
    assert check(SECRET).parts == (SECRET,), "an empty index finds nothing"


def test_document_that_is_mostly_overlap_is_dropped():
    text = f"{SECRET}\n{words('a', 10)}"
    assert check(text, SECRET).parts == ()
    assert check(text, SECRET).characters_removed == len(text)


def test_long_paragraph_loses_only_the_sentences_around_the_overlap():
    before = " ".join(f"Sentence {words(f'a{i}x', 12)}." for i in range(40))
    after = " ".join(f"Sentence {words(f'b{i}x', 12)}." for i in range(40))
    text = f"{before} It says {SECRET} here. {after}"
    assert [part.strip() for part in check(text, SECRET).parts] == [before, after]


def test_several_overlaps_leave_the_parts_between_them():
    other = words("other", 15)
    parts = (words("a", 30), words("b", 30), words("c", 60))
    left = check("\n".join([parts[0], SECRET, parts[1], other, parts[2], SECRET]), SECRET, other)
    assert (left.parts, left.overlaps) == (parts, 3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join), min_size=1, max_size=6
    ).map("\n".join),
    st.lists(st.sampled_from("abcd"), min_size=3, max_size=5).map(" ".join),
)
def test_no_part_has_an_ngram_of_the_evaluation_set(text, secret):
    index = NgramIndex([secret], n=3)
    left = decontaminate(text, hash_words(text), index)
    for part in left.parts:
        assert not len(index.find(hash_words(part)))
        assert part in text


def test_index_counts_distinct_ngrams_of_texts_on_their_own(monkeypatch):
    monkeypatch.setattr("icae.data.contamination._MERGE_AT", 2)
    index = NgramIndex(["a b c d", "A b c.", "x y", "z"], n=3)
    assert len(index) == 2
    assert index.find(hash_words("c d x y a b c")).tolist() == [4]


def test_corpora_and_triplets_are_checked_against(tmp_path):
    rows = [
        {"text": "one", "title": "ignored"},
        {"context": "two", "prompt": "three", "answer": "four", "answers": ["four", "five"]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.txt").write_text("six")
    found = ["one", "two", "three", "four", "four", "five", "six"]
    assert list(evaluation_texts([str(tmp_path)])) == found
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(InputError, match=r"Line 1(.|\n)*fields body"):
        list(evaluation_texts([str(tmp_path / "a.jsonl")]))
