import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.data.contamination import (
    ContaminationConfig,
    NgramIndex,
    decontaminate,
    evaluation_texts,
)
from icae.data.words import hash_words
from icae.errors import ConfigError, InputError


def words(name, count):
    return " ".join(f"{name}{i}" for i in range(count))


SECRET = words("secret", 20)


def check(text, *secrets, n=12, max_share=0.5):
    index = NgramIndex(secrets, n=n)
    return decontaminate(text, hash_words(text), index, ContaminationConfig(max_share=max_share))


def test_paragraph_around_an_overlap_is_cut_and_the_document_split():
    text = f"{words('a', 40)}\n\nBefore it {SECRET.upper()}, after it.\n\n{words('b', 40)}"
    left = check(text, SECRET)
    assert left.parts == (words("a", 40), words("b", 40))
    assert left.overlaps == 1
    assert left.characters_removed == len(text) - len(words("a", 40) + words("b", 40)) - 4


def test_text_without_overlap_stays_as_it_is():
    text = f"{words('a', 40)}\n\n{words('secret', 11)} and more"
    assert check(text, SECRET).parts == (text,)
    assert check(text, SECRET).characters_removed == 0


def test_twelve_words_are_an_overlap_and_eleven_are_not():
    inside = " ".join(SECRET.split()[3:15])
    text = f"{words('a', 30)}\n{inside}\n{words('b', 30)}"
    assert check(text, SECRET).overlaps == 1
    assert check(text.replace(inside, inside[: inside.rindex(" ")]), SECRET).overlaps == 0


def test_document_that_is_mostly_overlap_is_dropped():
    text = f"{SECRET}\n{words('a', 10)}"
    assert check(text, SECRET).parts == ()
    assert check(text, SECRET).characters_removed == len(text)
    assert check(text, SECRET, max_share=1.0).parts == (words("a", 10),)


def test_long_paragraph_loses_only_the_sentences_around_the_overlap():
    before = " ".join(f"Sentence {words(f'a{i}x', 12)}." for i in range(40))
    after = " ".join(f"Sentence {words(f'b{i}x', 12)}." for i in range(40))
    text = f"{before} It says {SECRET} here. {after}"
    assert [part.strip() for part in check(text, SECRET).parts] == [before, after]


def test_several_overlaps_leave_the_parts_between_them():
    other = words("other", 15)
    text = "\n".join([words("a", 30), SECRET, words("b", 30), other, words("c", 30)])
    left = check(text, SECRET, other)
    assert left.parts == (words("a", 30), words("b", 30), words("c", 30))
    assert left.overlaps == 2


def test_overlap_at_the_ends_leaves_no_empty_part():
    text = f"{SECRET}\n\n{words('a', 60)}\n\n{SECRET}"
    assert check(text, SECRET).parts == (words("a", 60),)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join), min_size=1, max_size=6
    ).map("\n".join),
    st.lists(st.sampled_from("abcd"), min_size=3, max_size=5).map(" ".join),
)
def test_no_part_has_an_ngram_of_the_evaluation_set(text, secret):
    index = NgramIndex([secret], n=3)
    left = decontaminate(text, hash_words(text), index, ContaminationConfig(max_share=1.0))
    for part in left.parts:
        assert not len(index.find(hash_words(part)))
        assert part in text


def test_index_counts_distinct_ngrams_of_texts_on_their_own(monkeypatch):
    monkeypatch.setattr("icae.data.contamination._MERGE_AT", 2)
    index = NgramIndex(["a b c d", "A b c.", "x y", "z"], n=3)
    assert len(index) == 2
    assert index.find(hash_words("c d x y a b c")).tolist() == [4]


def test_empty_index_finds_nothing():
    assert check(SECRET).parts == (SECRET,)


def test_corpora_and_triplets_are_read(tmp_path):
    rows = [
        {"text": "one", "title": "ignored"},
        {"context": "two", "prompt": "three", "answer": "four", "answers": ["four", "five"]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.txt").write_text("six")
    assert list(evaluation_texts([str(tmp_path)])) == [
        *("one", "two", "three", "four", "four", "five", "six")
    ]


def test_line_without_a_known_field_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(InputError, match=r"Line 1(.|\n)*fields body"):
        list(evaluation_texts([str(tmp_path / "a.jsonl")]))


@pytest.mark.parametrize("bad", [{"ngram_words": 1}, {"max_share": 1.5}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match="contamination"):
        ContaminationConfig(**bad)
