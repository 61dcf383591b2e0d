from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from icae.errors import MissingDependencyError, StoreError
from icae.store import MemoryStore, NewMemory, create_store, open_store, retrieve


@pytest.fixture
def location(tmp_path: Path) -> str:
    pytest.importorskip("lance", reason='the Lance store is NOT tested: pip install "icae[lance]"')
    return str(tmp_path / "memories.lance")


@pytest.fixture
def lance_store(location: str) -> Iterator[MemoryStore]:
    with create_store(location) as opened:
        yield opened


def test_without_lance_the_error_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    for act in (open_store, create_store):
        with pytest.raises(MissingDependencyError, match="needs Lance"):
            act(str(tmp_path / "memories.lance"))


def test_missing_lance_store_is_an_error(location) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(location)


def test_lance_store_keeps_finds_and_drops(lance_store, location, build, text_of) -> None:
    memory = build(text_of(300) + " golden needle")
    (first,) = lance_store.add([NewMemory(name="hay", memory=memory)])
    (second,) = lance_store.add([NewMemory(name="copy", memory=memory)])
    lance_store.add([NewMemory(name="other", memory=build("quick brown fox"))])
    assert (second.key, second.new) == (first.key, False)
    with open_store(location) as again:
        assert again.load("copy") == memory
        assert again.get(first.key[:8]).names == ("copy", "hay")
        assert again.verify() == []
        hits = again.search("the golden needles")
        assert [(hit.document, hit.span_first) for hit in hits] == [("copy", 8)]
        found = retrieve(again, "needle", budget=50)
        assert found.memory.documents[0].source.endswith("golden needle")
    for name in ("copy", "hay"):
        lance_store.remove_name(name)
    assert lance_store.search("needle") == []
    assert lance_store.collect().memories == 1
    assert [record.names for record in lance_store.records()] == [("other",)]
    assert lance_store.verify() == []


def test_name_moves_and_memories_are_removed_by_key(lance_store, build) -> None:
    (old,) = lance_store.add([NewMemory(name="doc", memory=build("old text"))])
    (new,) = lance_store.add([NewMemory(name="doc", memory=build("new text"))])
    assert new.replaced == old.key
    assert lance_store.link(old.key, name="doc").replaced == new.key
    assert lance_store.link("0" * 64, name="doc") is None
    assert lance_store.remove(old.key[:12]).names == ("doc",)
    assert [record.key for record in lance_store.records()] == [new.key]
    with pytest.raises(StoreError, match="no such memory"):
        lance_store.remove_name("doc")


def test_records_can_be_of_the_names_that_start_alike(lance_store, build) -> None:
    for name in ("anna/1", "anna/2", "ann/a", "annb", "ben/1"):
        lance_store.add([NewMemory(name=name, memory=build(name))])

    under = [record.names for record in lance_store.records(under="anna/")]
    assert under == [("anna/1",), ("anna/2",)]
    assert lance_store.records(under="x") == []
