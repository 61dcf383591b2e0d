"""What a store is addressed and searched by: keys, passages, and the words of a question."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icae.errors import InputError
from icae.memory import merge
from icae.store import compressor_settings, memory_key
from icae.store.keys import settings_of, text_digest
from icae.store.passages import (
    MAX_WORDS,
    PASSAGE_TOKENS,
    SNIPPET_CHARS,
    fts_query,
    passages_of,
    snippet_of,
    words_of,
)
from word_memories import filler, make_provenance, with_spans, word_memory

PLAIN = compressor_settings(ratio=4, verify=True)


@pytest.mark.parametrize(
    "change",
    [
        {"base_hash": "x"},
        {"adapter_hash": "x"},
        {"tokenizer_hash": "x"},
        {"layout": "uniform"},
        {"hidden_size": 4},
        {"slot_dtype": "bfloat16"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_model_gives_another_key(change: Any) -> None:
    one, other = make_provenance(), replace(make_provenance(), **change)
    assert memory_key("t", one, PLAIN) != memory_key("t", other, PLAIN)


def test_a_key_is_of_text_models_and_settings_and_never_changes() -> None:
    # Stores outlive versions: another result here would store everything twice.
    key = memory_key("0" * 64, make_provenance(), PLAIN)
    assert key == "fedc210b08fbbd9d28f661aab095b379d20c5042d4840f2bd5b0d3f3dc45766b"
    renamed = replace(make_provenance(), base_model="moved", adapter="renamed")
    assert key == memory_key("0" * 64, renamed, {"verify": True, "ratio": 4.0})
    assert key != memory_key("1" * 64, renamed, PLAIN)
    assert key != memory_key("0" * 64, renamed, compressor_settings(ratio=8, verify=True))


def test_only_a_plain_memory_shows_what_was_asked_of_the_compressor() -> None:
    plain = word_memory(filler(80))
    assert settings_of(plain, "0") == PLAIN
    first, *rest = plain.spans
    refined = with_spans(plain, (replace(first, refine_steps=5), *rest))
    edited = plain.replace_spans(0, 0, 1, None)
    for other in (edited, refined, plain + plain, plain.without_source()):
        assert settings_of(other, "abc") == {"content": "abc"}


def test_order_of_documents_is_in_the_digest_of_their_text() -> None:
    one, two = word_memory("one word"), word_memory("two words")
    assert text_digest(one) == one.documents[0].sha256
    assert text_digest(one + two) != text_digest(two + one)


def test_passages_end_with_their_document() -> None:
    memory = word_memory(filler(40)) + word_memory(filler(40, word="other"), name="second")
    passages = passages_of(memory)
    assert [(p.document, p.document_name) for p in passages] == [(0, "doc"), (1, "second")]
    assert passages[1].char_start == 0
    assert passages[1].text.startswith("other0 ")
    some_text = word_memory(filler(40)).without_source() + word_memory("kept", name="second")
    assert [p.document_name for p in passages_of(some_text)] == ["second"]


@settings(max_examples=25, deadline=None)
@given(words=st.lists(st.integers(1, 400), min_size=1, max_size=3))
def test_passages_of_enough_tokens_tile_spans_and_text(words: list[int]) -> None:
    memory = merge([word_memory(filler(n, word=f"w{i}x")) for i, n in enumerate(words)])
    passages = passages_of(memory)
    spans = [i for p in passages for i in range(p.span_first, p.span_end)]
    assert spans == list(range(len(memory.spans)))
    for index, document in enumerate(memory.documents):
        own = [p for p in passages if p.document == index]
        assert "".join(p.text for p in own) == document.source
        for passage in own[:-1]:
            tokens = memory.spans[passage.span_first : passage.span_end]
            assert sum(span.tokens for span in tokens) >= PASSAGE_TOKENS


def test_words_are_taken_once_without_case_and_operators_like_others() -> None:
    assert fts_query('Who AND who NOT (b* "c" NEAR/2 d:e^') == (
        '"who" OR "and" OR "not" OR "b" OR "c" OR "near" OR "2" OR "d" OR "e"'
    )
    assert len(words_of(filler(500))) == MAX_WORDS


@pytest.mark.parametrize(
    ("query", "message"),
    [("", "nothing to"), ("?!", "nothing to"), ("___", "nothing to"), ("caf\udce9", "not valid")],
)
def test_query_without_a_word_or_of_no_unicode_is_refused(query: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fts_query(query)


@given(query=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_is_a_valid_query(query: str) -> None:
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
    assert (snippet[0], snippet[-1]) == ("…", "…")
    assert len(snippet) <= SNIPPET_CHARS
    assert snippet_of("a needle", "needles") == "a needle"
