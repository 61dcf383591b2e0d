"""What can be wrong with the file of a store: a clear error, and the store as it was."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from icae.errors import StoreError
from icae.store import MemoryStore, NewMemory, open_store, sqlite_file
from icae.store.migrations import SCHEMA_VERSION
from icae.store.sqlite_file import translated
from word_memories import filler, word_memory

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and limits")

ADD = """
import os, resource, sys
sys.path[:0] = {paths!r}
from icae.errors import StoreError
from icae.memory import Memory
from icae.store import NewMemory, MemoryStore
memory = Memory.load({memory!r})
if {drop_rights} and os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
store = MemoryStore.open({store!r})
{before}
try:
    store.add([NewMemory(name="second", memory=memory)])
except StoreError as error:
    print(error)
    print("problems:", store.verify())
    print("names:", [record.names for record in store.records()])
"""


@pytest.fixture
def filled(path) -> Path:
    with MemoryStore.create(path) as store:
        store.add([NewMemory(name="first", memory=word_memory(filler(100) + " needle"))])
    return path


def test_missing_store_is_named(tmp_path) -> None:
    with pytest.raises(StoreError, match="no store") as caught:
        open_store(str(tmp_path / "absent.db"))
    assert "icae store add" in (caught.value.fix or "")
    assert list(tmp_path.iterdir()) == []


def changed(path: Path, statement: str) -> bytes:
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
    return path.read_bytes()


def test_other_file_is_not_a_store_and_stays_as_it_is(path, tmp_path) -> None:
    database = changed(tmp_path / "other.db", "CREATE TABLE t (x)")
    for content in (b"", b"not a store", b"x" * 5000, database):
        path.write_bytes(content)
        for act in (MemoryStore.open, MemoryStore.create):
            with pytest.raises(StoreError, match="is not a store"):
                act(path)
        assert path.read_bytes() == content


def test_place_where_no_store_can_be_is_refused(tmp_path) -> None:
    with pytest.raises(StoreError, match="is not a store"):
        MemoryStore.create(tmp_path)
    with pytest.raises(StoreError, match="cannot be"):
        MemoryStore.create(tmp_path / "absent" / "memories.db")


def test_store_of_a_newer_version_is_refused(filled) -> None:
    changed(filled, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="newer icae") as caught:
        MemoryStore.open(filled)
    assert caught.value.got == f"store version {SCHEMA_VERSION + 1}"


def test_log_of_a_lost_store_is_not_applied_to_a_new_one(path) -> None:
    path.with_name("memories.db-wal").write_bytes(b"log")
    with pytest.raises(StoreError, match="log is there"):
        MemoryStore.create(path)
    assert not path.exists()


def test_loser_of_a_race_to_create_opens_the_winner_s_store(filled, monkeypatch) -> None:
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: self != filled and real(self))
    sqlite_file.create(filled)
    monkeypatch.undo()
    with MemoryStore.open(filled) as store:
        assert store.get("first")
    assert [file.name for file in filled.parent.iterdir()] == [filled.name]


def test_lock_of_another_process_is_waited_for_and_then_reported(filled, monkeypatch) -> None:
    monkeypatch.setattr(sqlite_file, "LOCK_TIMEOUT_S", 0.05)
    other = sqlite3.connect(filled, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with MemoryStore.open(filled) as store:
        with pytest.raises(StoreError, match="in use by another process"):
            store.add([NewMemory(name="second", memory=word_memory("text"))])
        assert store.search("needle")  # readers are not kept waiting
        other.execute("ROLLBACK")
        other.close()
        store.add([NewMemory(name="second", memory=word_memory("text"))])
        assert store.verify() == []


@pytest.fixture
def shared(filled) -> Iterator[tuple[Path, Path]]:
    """A store and a memory file in a folder that every user may read."""
    folder = Path(tempfile.mkdtemp(prefix="icae-test-"))
    folder.chmod(0o755)
    store, memory = folder / "memories.db", folder / "memory.icae"
    shutil.copy(filled, store)
    word_memory(filler(8000)).save(memory)
    memory.chmod(0o644)
    yield store, memory
    shutil.rmtree(folder)


def attempt(store: Path, memory: Path, before: str, *, drop_rights: bool = False) -> str:
    """What a process says that adds a memory, as a user without rights if need be."""
    code = ADD.format(
        paths=[path for path in sys.path if path],
        memory=str(memory),
        store=str(store),
        before=before,
        drop_rights=drop_rights,
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@posix
def test_disk_that_fills_up_while_writing_is_an_error_and_changes_nothing(shared) -> None:
    store, memory = shared
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (180_000, 180_000))"
    said = attempt(store, memory, limit)
    assert "The store" in said or "space left" in said
    assert "nothing was changed" in said
    assert "problems: []" in said
    assert "names: [('first',)]" in said


@posix
@pytest.mark.parametrize("what", ["file", "folder"])
def test_read_only_store_can_be_read_and_refuses_to_change(shared, what) -> None:
    store, memory = shared
    if what == "file":
        store.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        store.parent.chmod(0o777)
    else:
        store.chmod(0o666)
        store.parent.chmod(0o555)
    before = store.read_bytes()
    search = "print(store.search('needle')[0].document)"
    said = attempt(store, memory, search, drop_rights=True)
    store.parent.chmod(0o755)
    assert said.startswith("first\n")
    assert "cannot be written" in said
    assert "problems: []" in said
    assert store.read_bytes() == before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "in use by another process"),
        (sqlite3.SQLITE_FULL, "no space left"),
        (sqlite3.SQLITE_READONLY_DIRECTORY, "cannot be written"),
        (sqlite3.SQLITE_CORRUPT_VTAB, "is damaged"),
        (sqlite3.SQLITE_TOOBIG, "too large"),
        (sqlite3.SQLITE_IOERR_WRITE, "cannot be read or written"),
    ],
)
def test_every_failure_of_sqlite_has_a_message(code, message) -> None:
    failure = sqlite3.OperationalError("reason")
    failure.sqlite_errorcode = code
    with pytest.raises(StoreError, match=message) as caught, translated(Path("s.db")):
        raise failure
    assert caught.value.fix is not None


def test_misuse_of_sqlite_is_not_hidden() -> None:
    with pytest.raises(sqlite3.ProgrammingError), translated(Path("s.db")):
        raise sqlite3.ProgrammingError("closed")
