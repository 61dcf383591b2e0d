from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from icae.errors import ConflictError, InputError, StoreError
from icae.memory import Memory
from icae.store import NewMemory, SqliteStore, create_store, open_store
from icae.store.migrations import MIGRATIONS
from word_memories import in_key_values


def put(store: SqliteStore, name: str, memory: Memory):
    return store.add([NewMemory(name=name, memory=memory)])[0]


def test_memory_comes_back_as_it_was(store, build, text_of, tmp_path) -> None:
    memory = build(text_of(100))
    added = put(store, "report", memory)
    assert (added.name, added.new, added.replaced) == ("report", True, None)
    for reference in ("report", added.key, added.key[:8]):
        assert store.load(reference) == memory
    store.export("report", tmp_path / "out.icae")
    assert Memory.load(tmp_path / "out.icae") == memory


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_keys_and_values_come_back_as_they_were(store, build, text_of, dtype) -> None:
    memory = in_key_values(build(text_of(300)), dtype)
    put(store, "report", memory)
    assert store.load("report") == memory
    assert store.get("report").provenance == memory.provenance
    assert [hit.key for hit in store.search("filler7", made_by=memory.provenance)]
    assert store.verify() == []
    put(store, "slots", build(text_of(300)))
    assert len(store.records()) == 2


def test_record_says_what_is_stored(store, build, text_of) -> None:
    memory = build(text_of(300))
    added = put(store, "report", memory)
    record = store.get("report")
    assert (record.key, record.names) == (added.key, ("report",))
    assert record.text_sha256 == memory.documents[0].sha256
    assert record.provenance == memory.provenance
    assert record.settings == {"ratio": 4.0, "verify": True}
    figures = (record.documents, record.passages, record.tokens, record.positions, record.fidelity)
    assert figures == (1, 3, 300, 75, 1.0)


def test_same_memory_is_stored_once_under_both_names(store, build) -> None:
    first, second = put(store, "b", build("one text")), put(store, "a", build("one text"))
    assert second.key == first.key
    assert (first.new, second.new) == (True, False)
    assert [record.names for record in store.records()] == [("a", "b")]


def test_other_ratio_text_or_adapter_is_stored_apart(store, build, provenance) -> None:
    put(store, "one", build("one text here"))
    put(store, "two", build("one text here", ratio=2.0))
    put(store, "three", build("one text there"))
    put(store, "four", build("one text here", provenance=provenance("c" * 64)))
    assert len(store.records()) == 4


def test_name_moves_to_the_new_version_of_a_document(store, build) -> None:
    old = put(store, "report", build("old text"))
    new = put(store, "report", build("new text"))
    assert new.replaced == old.key
    assert store.get("report").key == new.key
    assert store.get(old.key).names == ()


def test_change_of_a_memory_that_somebody_else_changed_is_refused(store, build) -> None:
    first, other = store.add([NewMemory(name=n, memory=build(f"{n} text")) for n in ("a", "b")])
    store.add([NewMemory(name="a", memory=build("a second text"), replaces=first.key)])
    late = NewMemory(name="a", memory=build("a late text"), replaces=first.key)
    free = NewMemory(name="b", memory=build("nothing of it"), replaces=other.key)
    with pytest.raises(ConflictError, match="changed by somebody else") as told:
        store.add([free, late])
    assert first.key in str(told.value)
    assert store.load("a").documents[0].source == "a second text"
    assert store.get("b").key == other.key
    store.remove_name("b")
    with pytest.raises(ConflictError, match="no memory of that name"):
        store.add([free])


def test_several_memories_are_added_together_or_not_at_all(store, build) -> None:
    items = [NewMemory(name="good", memory=build("a")), NewMemory(name=" ", memory=build("b"))]
    with pytest.raises(InputError, match="no name for a memory"):
        store.add(items)
    assert store.records() == []
    assert [one.name for one in store.add(items[:1])] == ["good"]


def test_link_names_what_is_there_and_nothing_else(store, build) -> None:
    added = put(store, "report", build("one text"))
    linked = store.link(added.key, name="copy")
    assert linked is not None
    assert (linked.new, linked.replaced) == (False, None)
    assert store.link("0" * 64, name="copy") is None
    assert store.get("copy").names == ("copy", "report")


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "caf\udce9", "x" * 5000])
def test_name_that_cannot_be_shown_is_refused(store, build, name) -> None:
    with pytest.raises(InputError, match="no name for a memory"):
        put(store, name, build("text"))


def test_removed_name_hides_the_memory_until_it_is_collected(store, build) -> None:
    added = put(store, "report", build("golden needle"))
    assert store.remove_name("report") == added.key
    assert store.search("needle") == []
    assert [record.names for record in store.records()] == [()]
    collected = store.collect()
    assert collected.memories == 1
    assert store.records() == []


def test_collect_spares_what_has_a_name_and_gives_the_space_back(
    store, path, build, text_of
) -> None:
    for name in ("small", "other", "large"):
        put(store, name, build(text_of(30_000) if name == "large" else "stays"))
    store.remove_name("other")
    store.remove_name("large")
    before = path.stat().st_size + path.with_name("memories.db-wal").stat().st_size
    collected = store.collect()
    assert [record.names for record in store.records()] == [("small",)]
    assert (collected.memories, collected.bytes > 300_000) == (1, True)
    assert path.stat().st_size < before - 300_000
    assert store.verify() == []


def test_memory_is_removed_with_all_its_names(store, build) -> None:
    added = put(store, "a", build("golden needle"))
    put(store, "b", build("golden needle"))
    assert store.remove(added.key[:12]).names == ("a", "b")
    assert store.records() == []
    assert store.verify() == []


@pytest.mark.parametrize("reference", ["absent", "0" * 64, "0123", "x" * 64])
def test_unknown_reference_is_an_error_that_says_so(store, build, reference) -> None:
    put(store, "report", build("text"))
    for act in (store.get, store.load, store.remove, store.remove_name):
        with pytest.raises(StoreError, match="no such memory"):
            act(reference)


def test_start_of_a_key_that_fits_two_memories_is_refused(store, build) -> None:
    for word in "ab":
        put(store, word, build(word))
    store._db.execute("UPDATE memories SET key = '01234567' || substr(key, 9)")
    with pytest.raises(StoreError, match="several memories"):
        store.get("01234567")


def test_name_comes_before_a_key(store, build) -> None:
    key = put(store, "report", build("one text")).key
    other = put(store, key, build("other text")).key
    assert store.get(key).key == other


def test_best_passage_comes_first(store, build, text_of) -> None:
    text = text_of(150) + " the golden needle " + text_of(150, word="more")
    put(store, "hay", build(text_of(300) + " golden straw"))
    put(store, "stack", build(text))
    hits = store.search("Where is the golden needle?", limit=5)
    best = hits[0]
    assert best.document == "stack"
    assert "golden needle" in text[best.char_start : best.char_end]
    assert "golden needle" in best.snippet
    assert (best.span_first, best.span_end) == (4, 8)
    assert [hit.document for hit in hits] == ["stack", "hay"]
    assert hits[0].score > hits[1].score


def test_search_finds_other_forms_and_accents(store, build) -> None:
    put(store, "doc", build("She signed the contract in Zürich"))
    assert store.search("signing contracts")
    assert store.search("Zurich")


SCRIPTS = {
    "chinese": ("猫坐在垫子上。安装方法见下一章。", "如何安装软件?", "安装方法"),
    "japanese": (
        "データベースを起動するには、設定ファイルを編集します。",
        "設定の方法",
        "設定ファイル",
    ),
    "korean": ("프로그램을 설치하려면 관리자 권한이 필요합니다.", "설치 방법", "설치하려면"),
    "thai": ("การติดตั้งโปรแกรมต้องใช้สิทธิ์ผู้ดูแลระบบ", "วิธีติดตั้ง", "ติดตั้ง"),
}
FILLERS = (
    "天气很好，我们去公园散步。",
    "今日は天気がいいです。",
    "오늘은 날씨가 좋습니다.",
    "วันนี้อากาศดีมาก",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_search_finds_words_in_scripts_without_spaces(store, build, script) -> None:
    text, question, shown = SCRIPTS[script]
    for number, filler in enumerate(FILLERS):
        put(store, f"filler{number}", build(filler * 3))
    put(store, "wanted", build(text))
    best = store.search(question)[0]
    assert best.document == "wanted"
    assert shown in best.snippet


def test_single_character_and_words_of_two_scripts_are_found_in_one_ranking(store, build) -> None:
    put(store, "mixed", build("使用SQLite数据库 with an index"))
    put(store, "water", build("我们喝水"))
    put(store, "english", build("An index of SQLite pages"))
    assert [hit.document for hit in store.search("水")] == ["water"]
    assert [hit.document for hit in store.search("数")] == ["mixed"]
    assert [hit.document for hit in store.search("SQLite 数据库")] == ["mixed", "english"]


def test_ideographs_are_words_too_and_grammar_counts_for_nothing(store, build) -> None:
    put(store, "making", build("ファイルの作成について"))
    put(store, "grammar", build("これはどうしますかと言われました。"))
    assert [hit.document for hit in store.search("どう作りますか")] == ["making"]
    assert [hit.document for hit in store.search("どうしますか")] == ["grammar"]


def test_store_of_the_first_version_finds_them_too_once_it_is_opened(path, build) -> None:
    with SqliteStore.create(path) as store:
        put(store, "wanted", build(SCRIPTS["chinese"][0]))
        put(store, "english", build("golden needle"))
    first_version(path)
    with SqliteStore.open(path) as store:
        assert store.search("安装")[0].document == "wanted"
        assert store.search("needles")[0].document == "english"
        assert store.verify() == []
        store.remove_name("wanted")
        store.collect()
        assert store.verify() == []


def first_version(path) -> None:
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


def test_search_can_be_kept_to_a_limit_and_to_one_adapter(store, build, provenance) -> None:
    other = provenance("c" * 64)
    put(store, "mine", build("golden needle"))
    put(store, "theirs", build("golden needle", provenance=other))
    assert len(store.search("needle")) == 2
    assert len(store.search("needle", limit=1)) == 1
    assert [hit.document for hit in store.search("needle", made_by=other)] == ["theirs"]


def test_documents_in_one_memory_are_told_apart(store, build) -> None:
    put(store, "both", build("first text", name="a.txt") + build("golden needle", name="b.txt"))
    (hit,) = store.search("needle")
    assert (hit.document, hit.document_index) == ("both/b.txt", 1)


def test_memory_without_text_is_kept_and_not_found(store, build) -> None:
    put(store, "bare", build("golden needle").without_source())
    assert store.search("needle") == []
    assert store.get("bare").passages == 0
    assert store.verify() == []


def test_store_is_there_for_the_next_process(path, build) -> None:
    with create_store(str(path)) as store:
        put(store, "report", build("golden needle"))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with open_store(str(path)) as store:
        assert store.location == str(path)
        assert store.search("needle")
        assert store.verify() == []


def test_records_can_be_of_the_names_that_start_alike(store, build) -> None:
    for name in ("anna/1", "anna/2", "ann/a", "annb", "ben/1"):
        store.add([NewMemory(name=name, memory=build(name))])

    under = [record.names for record in store.records(under="anna/")]
    assert under == [("anna/1",), ("anna/2",)]
    assert store.records(under="x") == []
