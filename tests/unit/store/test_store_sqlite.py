from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from icae.errors import ConflictError, InputError, StoreError
from icae.memory import Memory
from icae.store import Added, MemoryStore, NewMemory, create_store, open_store
from icae.store.migrations import MIGRATIONS
from word_memories import filler, in_key_values, make_provenance, word_memory


def put(store: MemoryStore, name: str, memory: Memory | str) -> Added:
    memory = word_memory(memory) if isinstance(memory, str) else memory
    return store.add([NewMemory(name=name, memory=memory)])[0]


def names(store: MemoryStore) -> list[tuple[str, ...]]:
    return [record.names for record in store.records()]


def found(store: MemoryStore, query: str, **how: Any) -> list[str]:
    return [hit.document for hit in store.search(query, **how)]


@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
def test_memory_comes_back_as_it_was(store: MemoryStore, dtype: Any) -> None:
    plain = word_memory(filler(300))
    memory = plain if dtype is None else in_key_values(plain, dtype)
    added = put(store, "report", memory)
    assert (added.name, added.new, added.replaced) == ("report", True, None)
    for reference in ("report", added.key, added.key[:8]):
        assert store.load(reference) == memory
    record = store.get("report")
    assert (record.key, record.names) == (added.key, ("report",))
    assert record.text_sha256 == memory.documents[0].sha256
    assert record.provenance == memory.provenance
    assert record.settings == {"ratio": 4.0, "verify": True}
    figures = (record.documents, record.passages, record.tokens, record.positions, record.fidelity)
    assert figures == (1, 3, 300, 75, 1.0)
    assert found(store, "filler7", made_by=memory.provenance) == ["report"]
    assert store.verify() == []
    put(store, "slots", plain)
    assert len(store.records()) == (1 if dtype is None else 2)


def test_same_memory_is_stored_once_under_both_names(store: MemoryStore) -> None:
    first, second = put(store, "b", "one text"), put(store, "a", "one text")
    assert second.key == first.key
    assert (first.new, second.new) == (True, False)
    assert names(store) == [("a", "b")]


def test_other_ratio_text_or_adapter_is_stored_apart(store: MemoryStore) -> None:
    put(store, "one", "one text here")
    put(store, "two", word_memory("one text here", ratio=2.0))
    put(store, "three", "one text there")
    put(store, "four", word_memory("one text here", provenance=make_provenance("c" * 64)))
    assert len(store.records()) == 4


def test_name_moves_to_the_new_version_of_a_document(store: MemoryStore) -> None:
    old, new = put(store, "report", "old text"), put(store, "report", "new text")
    assert new.replaced == old.key
    assert store.get("report").key == new.key
    assert store.get(old.key).names == ()


def test_change_of_a_memory_that_somebody_else_changed_is_refused(store: MemoryStore) -> None:
    first, other = put(store, "a", "a text"), put(store, "b", "b text")
    second = NewMemory(name="a", memory=word_memory("a second text"), replaces=first.key)
    store.add([second])
    late = NewMemory(name="a", memory=word_memory("a late text"), replaces=first.key)
    free = NewMemory(name="b", memory=word_memory("nothing of it"), replaces=other.key)
    with pytest.raises(ConflictError, match="changed by somebody else") as told:
        store.add([free, late])
    assert first.key in str(told.value)
    assert store.load("a").documents[0].source == "a second text"
    assert store.get("b").key == other.key
    with pytest.raises(ConflictError, match="changed by somebody else"):
        store.remove_name("b", stands_for=first.key)
    assert store.remove_name("b", stands_for=other.key) == other.key
    with pytest.raises(ConflictError, match="no memory of that name"):
        store.add([free])


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "caf\udce9", "x" * 5000])
def test_several_memories_are_added_together_or_not_at_all(store: MemoryStore, name: str) -> None:
    items = [NewMemory(name=own, memory=word_memory("a")) for own in ("good", name)]
    with pytest.raises(InputError, match="no name for a memory"):
        store.add(items)
    assert store.records() == []
    assert [one.name for one in store.add(items[:1])] == ["good"]


def test_link_names_what_is_there_and_nothing_else(store: MemoryStore) -> None:
    added = put(store, "report", "one text")
    linked = store.link(added.key, name="copy")
    assert linked is not None
    assert (linked.new, linked.replaced) == (False, None)
    assert store.link("0" * 64, name="copy") is None
    assert store.get("copy").names == ("copy", "report")


def test_removed_name_hides_the_memory_until_it_is_collected(
    store: MemoryStore, path: Path
) -> None:
    for name in ("small", "other", "large"):
        put(store, name, filler(30_000, word="needle") if name == "large" else "stays")
    store.remove_name("other")
    store.remove_name("large")
    assert store.search("stays")
    assert store.search("needle7") == []
    assert names(store) == [("small",), ()]
    before = path.stat().st_size + path.with_name("memories.db-wal").stat().st_size
    memories, freed = store.collect()
    assert names(store) == [("small",)]
    assert (memories, freed > 300_000) == (1, True)
    assert path.stat().st_size < before - 300_000
    assert store.verify() == []


def test_memory_is_removed_with_all_its_names(store: MemoryStore) -> None:
    added = put(store, "a", "golden needle")
    put(store, "b", "golden needle")
    assert store.remove(added.key[:12]).names == ("a", "b")
    assert store.records() == store.verify() == []


@pytest.mark.parametrize("reference", ["absent", "0" * 64, "0123", "x" * 64])
def test_unknown_reference_is_an_error_that_says_so(store: MemoryStore, reference: str) -> None:
    put(store, "report", "text")
    for act in (store.get, store.load, store.remove, store.remove_name):
        with pytest.raises(StoreError, match="no such memory"):
            act(reference)


def test_start_of_a_key_that_fits_two_memories_is_refused(store: MemoryStore) -> None:
    for word in "ab":
        put(store, word, word)
    store._db.execute("UPDATE memories SET key = '01234567' || substr(key, 9)")
    with pytest.raises(StoreError, match="several memories"):
        store.get("01234567")


def test_name_comes_before_a_key(store: MemoryStore) -> None:
    key = put(store, "report", "one text").key
    other = put(store, key, "other text").key
    assert store.get(key).key == other


def test_best_passage_comes_first(store: MemoryStore) -> None:
    text = filler(150) + " the golden needle " + filler(150, word="more")
    put(store, "hay", filler(300) + " golden straw")
    put(store, "stack", text)
    hits = store.search("Where is the golden needle?", limit=5)
    best = hits[0]
    assert [hit.document for hit in hits] == ["stack", "hay"]
    assert "golden needle" in text[best.char_start : best.char_end]
    assert "golden needle" in best.snippet
    assert (best.span_first, best.span_end) == (4, 8)
    assert hits[0].score > hits[1].score


SCRIPTS = {
    "english": ("She signed the contract", "signing contracts", "signed the"),
    "accents": ("The office in Zürich", "Zurich", "Zürich"),
    "chinese": ("猫坐在垫子上。安装方法见下一章。", "如何安装软件?", "安装方法"),
    "japanese": (
        "データベースを起動するには、設定ファイルを編集します。",
        "設定の方法",
        "設定ファイル",
    ),
    "korean": ("프로그램을 설치하려면 관리자 권한이 필요합니다.", "설치 방법", "설치하려면"),
    "thai": ("การติดตั้งโปรแกรมต้องใช้สิทธิ์ผู้ดูแลระบบ", "วิธีติดตั้ง", "ติดตั้ง"),
}
OTHERS = (
    "天气很好，我们去公园散步。",
    "今日は天気がいいです。",
    "오늘은 날씨가 좋습니다.",
    "วันนี้อากาศดีมาก",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_search_finds_other_forms_and_words_without_spaces(store: Any, script: str) -> None:
    text, question, shown = SCRIPTS[script]
    for other in OTHERS:
        put(store, other, other * 3)
    put(store, "wanted", text)
    best = store.search(question)[0]
    assert best.document == "wanted"
    assert shown in best.snippet


def test_characters_words_and_grammar_of_two_scripts_have_one_ranking(store: MemoryStore) -> None:
    put(store, "mixed", "使用SQLite数据库 with an index")
    put(store, "water", "我们喝水")
    put(store, "english", "An index of SQLite pages")
    put(store, "making", "ファイルの作成について")
    put(store, "grammar", "これはどうしますかと言われました。")
    assert found(store, "水") == ["water"]
    assert found(store, "数") == ["mixed"]
    assert found(store, "SQLite 数据库") == ["mixed", "english"]
    assert found(store, "どう作りますか") == ["making"]
    assert found(store, "どうしますか") == ["grammar"]


def test_store_of_the_first_version_finds_them_too_once_it_is_opened(path: Path) -> None:
    with MemoryStore.create(path) as store:
        put(store, "wanted", SCRIPTS["chinese"][0])
        put(store, "english", "golden needle")
    first_version(path)
    with MemoryStore.open(path) as store:
        assert found(store, "安装") == ["wanted"]
        assert found(store, "needles") == ["english"]
        assert store.verify() == []
        store.remove_name("wanted")
        store.collect()
        assert store.verify() == []


def first_version(path: Path) -> None:
    """Turn a store into what the first version of its tables would hold."""
    with closing(sqlite3.connect(path)) as db, db:
        rows = db.execute("SELECT * FROM passages").fetchall()
        for kind, name in (("TRIGGER", "added"), ("TRIGGER", "removed"), ("TABLE", "words")):
            db.execute(f"DROP {kind} passage_{name}")
        db.execute("DROP VIEW IF EXISTS passage_texts")
        db.execute("DROP TABLE passages")
        for statement in MIGRATIONS[0]:
            if "passage" in statement:
                db.execute(statement)
        places = ", ".join("?" * 10)
        db.executemany(f"INSERT INTO passages VALUES ({places})", [row[:10] for row in rows])
        db.execute("PRAGMA user_version = 1")


def test_search_can_be_kept_to_a_limit_and_to_one_adapter(store: MemoryStore) -> None:
    other = make_provenance("c" * 64)
    put(store, "mine", "golden needle")
    put(store, "theirs", word_memory("golden needle", provenance=other))
    assert len(store.search("needle")) == 2
    assert len(store.search("needle", limit=1)) == 1
    assert found(store, "needle", made_by=other) == ["theirs"]


def test_documents_in_one_memory_are_told_apart(store: MemoryStore) -> None:
    memory = word_memory("first text", name="a.txt") + word_memory("golden needle", name="b.txt")
    put(store, "both", memory)
    (hit,) = store.search("needle")
    assert (hit.document, hit.document_index) == ("both/b.txt", 1)


def test_memory_without_text_is_kept_and_not_found(store: MemoryStore) -> None:
    put(store, "bare", word_memory("golden needle").without_source())
    assert store.search("needle") == store.verify() == []
    assert store.get("bare").passages == 0


def test_store_is_there_for_the_next_process(path: Path) -> None:
    with create_store(str(path)) as store:
        put(store, "report", "golden needle")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with open_store(str(path)) as store:
        assert store.location == str(path)
        assert store.search("needle")
        assert store.verify() == []


def test_records_can_be_of_the_names_that_start_alike(store: MemoryStore) -> None:
    for name in ("anna/1", "anna/2", "ann/a", "annb", "ben/1"):
        put(store, name, name)
    assert [one.names for one in store.records(under="anna/")] == [("anna/1",), ("anna/2",)]
    assert store.records(under="x") == []
