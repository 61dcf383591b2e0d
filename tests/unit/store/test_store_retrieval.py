from __future__ import annotations

import pytest

from icae.errors import InputError, StoreError
from icae.store import MemoryStore, NewMemory, retrieve
from word_memories import filler, make_provenance, word_memory


@pytest.fixture
def library(store) -> MemoryStore:
    """Two documents of three passages (32, 32 and about 11 positions) each, and a short one."""
    first = f"{filler(130)} needle {filler(130, word='b')} needle {filler(38, word='c')}"
    second = f"{filler(298, word='d')} golden needle"
    for name, text in (("first", first), ("second", second), ("short", "golden needle golden")):
        store.add([NewMemory(name=name, memory=word_memory(text, name=f"{name}.txt"))])
    return store


def test_best_passages_fill_the_budget(library) -> None:
    found = retrieve(library, "golden needle", budget=13)
    assert [citation.document for citation in found.citations] == ["short", "second"]
    assert found.memory.positions == 1 + 11
    assert [document.name for document in found.memory.documents] == [
        "short.txt",
        "second.txt[1170:1393]",
    ]


def test_citations_name_the_characters_that_the_memory_holds(library) -> None:
    found = retrieve(library, "golden needle", budget=100)
    for citation, document in zip(found.citations, found.memory.documents, strict=True):
        source = library.load(citation.key).documents[0].source
        assert source is not None
        assert document.source == source[citation.char_start : citation.char_end] == citation.text
        assert "needle" in citation.snippet
    assert sum(c.positions for c in found.citations) == found.memory.positions


def test_passages_of_a_document_are_put_back_in_order_and_joined(library) -> None:
    found = retrieve(library, "c1 filler100 b100 needle", budget=75)
    (citation,) = found.citations
    text = library.load("first").documents[0]
    assert (citation.document, citation.char_start, citation.char_end) == ("first", 0, text.chars)
    assert found.memory.documents == (text,)
    assert citation.text == text.source


def test_passage_that_does_not_fit_makes_room_for_a_shorter_one(library) -> None:
    found = retrieve(library, "filler100 c1", budget=12)
    assert [citation.positions for citation in found.citations] == [11]


def test_budget_below_the_shortest_passage_is_refused(library) -> None:
    with pytest.raises(InputError, match="budget is too small") as caught:
        retrieve(library, "filler100", budget=8)
    assert caught.value.expected == "at least 32"


def test_question_that_nothing_matches_is_an_error(library) -> None:
    with pytest.raises(StoreError, match="matches the question"):
        retrieve(library, "unheard words", budget=100)


def test_memories_of_other_adapters_are_named_and_not_used(library) -> None:
    with pytest.raises(StoreError, match="loaded adapter can read") as caught:
        retrieve(library, "needle", budget=100, made_by=make_provenance("c" * 64))
    assert "tiny-adapter" in (caught.value.got or "")


def test_passage_with_only_common_words_of_the_question_is_left_out(store) -> None:
    texts = ["the platypus", *(f"the wind and number{i}" for i in range(20))]
    store.add([NewMemory(name=f"doc{i}", memory=word_memory(text)) for i, text in enumerate(texts)])
    found = retrieve(store, "Where is the platypus?", budget=500)
    assert [citation.document for citation in found.citations] == ["doc0"]
