"""Every kind of damage to a store is reported, and nothing is changed."""

from __future__ import annotations

import hashlib

import pytest

from icae.errors import StoreError
from icae.store import MemoryStore, NewMemory
from word_memories import filler, word_memory


@pytest.fixture
def filled(store) -> MemoryStore:
    store.add(
        [NewMemory(name=f"doc{i}", memory=word_memory(filler(200, word=f"w{i}"))) for i in "ab"]
    )
    assert store.verify() == []
    return store


def messages(store: MemoryStore) -> str:
    return " | ".join(store.verify())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("UPDATE contents SET data = zeroblob(length(data))", "do not match their digest"),
        ("DELETE FROM contents", "bytes are missing"),
        ("UPDATE memories SET tokens = tokens + 1", "its tokens is 201, 200 by its bytes"),
        ("UPDATE memories SET text_sha256 = 'x'", "its text_sha256 is 'x'"),
        ("UPDATE memories SET maker = 'x'", "its maker is 'x'"),
        ("UPDATE memories SET settings = '{}'", "its key is"),
        ("UPDATE memories SET settings = '['", "settings cannot be read"),
        ("UPDATE passages SET char_end = char_end - 1", "passages are not those"),
        ("UPDATE passages SET text = 'other'", "not indexed as they are"),
        ("INSERT INTO names VALUES ('ghost', 99)", "names a row of memories"),
        ("INSERT INTO passage_words (passage_words) VALUES ('delete-all')", "not indexed"),
    ],
)
def test_damage_is_reported(filled, damage, message) -> None:
    filled._db.execute("PRAGMA foreign_keys = OFF")
    filled._db.execute(damage)
    assert message in messages(filled)


def test_memory_whose_bytes_and_digest_were_both_changed_is_reported(filled) -> None:
    (data,) = filled._db.execute("SELECT data FROM contents LIMIT 1").fetchone()
    changed = data[:-1] + bytes([data[-1] ^ 1])
    digest = hashlib.sha256(changed).hexdigest()
    filled._db.execute("UPDATE contents SET data = ?", [changed])
    filled._db.execute("UPDATE memories SET sha256 = ?", [digest])
    problems = filled.verify()
    assert [one[:64] for one in problems] == sorted(record.key for record in filled.records())
    assert "damaged or changed" in problems[0]


def test_damaged_memory_is_not_loaded_and_can_be_replaced(filled) -> None:
    filled._db.execute("UPDATE contents SET data = zeroblob(length(data))")
    with pytest.raises(StoreError, match="damaged") as caught:
        filled.load("doca")
    assert "store rm --key" in (caught.value.fix or "")
    for record in filled.records():
        filled.remove(record.key)
    filled.add([NewMemory(name="doca", memory=word_memory(filler(200)))])
    assert filled.verify() == []


def test_damaged_file_is_reported(filled, path) -> None:
    filled.close()
    content = bytearray(path.read_bytes())
    for page in range(4, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    path.write_bytes(content)
    with MemoryStore.open(path) as store:
        assert "SQLite" in messages(store)


def test_verify_changes_nothing(filled, path) -> None:
    filled.collect()
    before = path.read_bytes()
    filled.verify()
    filled.close()
    assert path.read_bytes() == before
