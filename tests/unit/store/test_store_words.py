from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icae.errors import InputError
from icae.store.passages import MAX_WORDS, SNIPPET_CHARS, fts_query, snippet_of, words_of


def test_words_are_taken_once_without_case_and_operators_like_others() -> None:
    assert fts_query('Who AND who NOT (b* "c" NEAR/2 d:e^') == (
        '"who" OR "and" OR "not" OR "b" OR "c" OR "near" OR "2" OR "d" OR "e"'
    )
    assert len(words_of(" ".join(f"w{i}" for i in range(500)))) == MAX_WORDS


@pytest.mark.parametrize(
    ("query", "message"),
    [("", "nothing to"), ("?!", "nothing to"), ("___", "nothing to"), ("caf\udce9", "not valid")],
)
def test_query_without_a_word_or_of_no_unicode_is_refused(query, message) -> None:
    with pytest.raises(InputError, match=message):
        fts_query(query)


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
    assert snippet_of("a needle", "needles") == "a needle"
