from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icae.errors import InputError
from icae.store.passages import MAX_WORDS, SNIPPET_CHARS, fts_query, snippet_of, words_of


def test_words_are_taken_once_and_without_case() -> None:
    assert words_of("Who signed? who SIGNED it!") == ["who", "signed", "it"]


def test_operators_are_words_like_others() -> None:
    assert fts_query('a AND NOT (b* "c" NEAR/2 d:e^') == (
        '"a" OR "and" OR "not" OR "b" OR "c" OR "near" OR "2" OR "d" OR "e"'
    )


def test_long_question_is_cut_to_its_first_words() -> None:
    assert len(words_of(" ".join(f"w{i}" for i in range(500)))) == MAX_WORDS


@pytest.mark.parametrize("query", ["", "  ", "?!", "___", '"*"'])
def test_query_without_a_word_is_refused(query) -> None:
    with pytest.raises(InputError, match="nothing to search for"):
        fts_query(query)


def test_query_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InputError, match="not valid text"):
        fts_query("caf\udce9")


@given(query=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_is_a_valid_query(query) -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE t USING fts5(text)")
    try:
        match = fts_query(query)
    except InputError:
        return
    db.execute("SELECT * FROM t WHERE t MATCH ?", [match]).fetchall()


def test_snippet_surrounds_the_first_word_found() -> None:
    text = "before " * 60 + "the\ngolden   needle " + "after " * 60
    snippet = snippet_of(text, "Where is the NEEDLE?")
    assert "the golden needle" in snippet
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert len(snippet) <= SNIPPET_CHARS


def test_snippet_of_a_short_text_is_all_of_it() -> None:
    assert snippet_of("a needle", "needles") == "a needle"
