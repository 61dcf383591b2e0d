"""A memory store in one SQLite file, safe for several processes.

A memory, its names, its passages and their words change in one transaction, so a store
is sound whenever a process is killed. One object serves one thread at a time; every
process and thread opens its own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from icae.config.parsing import from_dict
from icae.errors import ConflictError, MemoryFileError, MissingMemoryError, StoreError
from icae.memory import Memory, Provenance, memory_bytes, memory_from_bytes
from icae.store import sqlite_check, sqlite_file
from icae.store.keys import MIN_PREFIX, check_name, maker_hash, row_of
from icae.store.passages import fts_query, indexed_text, passages_of, snippet_of
from icae.store.records import Added, NewMemory, SearchHit, StoredMemory

Row = Mapping[str, str | int | float | None]

_RECORD = """
    SELECT *,
        (SELECT count(*) FROM passages WHERE memory_id = memories.id) AS passages,
        (SELECT json_group_array(name)
         FROM (SELECT name FROM names WHERE memory_id = memories.id ORDER BY name)) AS names
    FROM memories
"""
_UNDER = "WHERE id IN (SELECT memory_id FROM names WHERE name >= ? AND name < ?)"
_AS_STORED = (
    *("key", "text_sha256", "documents", "passages", "tokens", "positions", "fidelity"),
    *("bytes", "sha256", "added_at"),
)
"""Columns that a `StoredMemory` has as they are."""
_AS_FOUND = (
    *("key", "span_first", "span_end", "char_start", "char_end", "positions", "score"),
    "text",
)
"""Columns that a `SearchHit` has as they are."""
_SEARCH = """
    SELECT key, documents, document, document_name, span_first, span_end, char_start,
        char_end, passages.positions AS positions, -score AS score, text,
        (SELECT min(name) FROM names WHERE memory_id = memories.id) AS name
    FROM (
        SELECT passage_words.rowid AS passage_id, bm25(passage_words) AS score
        FROM passage_words
        JOIN passages ON passages.id = passage_words.rowid
        JOIN memories ON memories.id = passages.memory_id
        WHERE passage_words MATCH :query
            AND (:maker IS NULL OR maker = :maker)
            AND EXISTS (SELECT 1 FROM names WHERE names.memory_id = memories.id)
        ORDER BY score, passage_id LIMIT :limit
    )
    JOIN passages ON passages.id = passage_id
    JOIN memories ON memories.id = passages.memory_id
    ORDER BY score DESC, passage_id
"""


class MemoryStore:
    """Memories under the user's names, each stored once, with search over their text.

    A reference is a name, a key, or the first digits of one key (at least 8). Every
    method raises StoreError if the store cannot be read or written, or a reference stands
    for no memory or for several; the store is then as it was before.
    """

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self._db = db

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store that exists.

        Raises:
            StoreError: If there is none, it is another file or of a newer version.
        """
        return cls(Path(path), sqlite_file.connect(Path(path)))

    @classmethod
    def create(cls, path: str | Path) -> Self:
        """Open a store, which is made if there is none; a StoreError if it cannot be."""
        sqlite_file.create(Path(path))
        return cls.open(path)

    @property
    def location(self) -> str:
        """Where the store is, for messages."""
        return str(self._path)

    def add(self, items: Sequence[NewMemory]) -> list[Added]:
        """Put memories into the store, all of them or none; returns what became of each.

        Raises:
            ConflictError: If a name stands for another memory than the one to be replaced.
            InputError: If a name cannot be used.
        """
        ready = []
        for item in items:
            check_name(item.name)
            data = memory_bytes(item.memory)
            ready.append((item, row_of(item.memory, data, item.settings), data))
        with self._writing():
            return [self._add(*one) for one in ready]

    def link(self, key: str, *, name: str) -> Added | None:
        """Give the memory with a key a name, which moves here if another memory had it.

        Returns None if the store has no such memory.
        """
        check_name(name)
        with self._writing():
            memory_id = self._id_of(key)
            if memory_id is None:
                return None
            return self._named(name, memory_id, key, new=False)

    def records(self, *, under: str = "") -> list[StoredMemory]:
        """All memories, or those with a name that starts so; in the order of the names.

        Memories without a name come last.
        """
        asked = (_RECORD + _UNDER, [under, under + chr(0x10FFFF)]) if under else (_RECORD,)
        with self._reading():
            rows = self._db.execute(*asked).fetchall()
        records = [_record(row) for row in rows]
        return sorted(records, key=lambda record: (not record.names, record.names, record.key))

    def get(self, reference: str) -> StoredMemory:
        """What the store knows about a memory."""
        with self._reading():
            return self._stored(self._resolve(reference))

    def load(self, reference: str) -> Memory:
        """Read a memory and check all of it; a StoreError if it is damaged."""
        with self._reading():
            key, data = self._db.execute(
                "SELECT key, data FROM memories LEFT JOIN contents ON memory_id = id WHERE id = ?",
                [self._resolve(reference)],
            ).fetchone()
        try:
            if data is None:
                raise MemoryFileError("its bytes are missing")
            return memory_from_bytes(data, where=f"memory {key} of {self.location}")
        except MemoryFileError as error:
            raise StoreError(
                f"A memory in {self.location} is damaged.",
                got=f"{key}: {error.got or error.message}",
                fix="Drop it with `icae store rm --key` and add the document again.",
            ) from error

    def search(
        self, query: str, *, limit: int = 10, made_by: Provenance | None = None
    ) -> list[SearchHit]:
        """Find passages by the words of any text: those with more and rarer ones come first.

        Only memories that have a name are searched, and if `made_by` is given, of these only
        those that fit it.

        Raises:
            InputError: If the query has no word.
        """
        parameters = {
            "query": fts_query(query),
            "maker": None if made_by is None else maker_hash(made_by),
            "limit": limit,
        }
        with self._reading():
            rows = self._db.execute(_SEARCH, parameters).fetchall()
        return [_hit(row, query) for row in rows]

    def remove_name(self, name: str, *, stands_for: str | None = None) -> str:
        """Drop a name; the memory, whose key is returned, stays until `collect`.

        A ConflictError if the name stands for another memory than that of the key `stands_for`.
        """
        check_name(name)
        with self._writing():
            key = self._key_named(name)
            if key is None:
                raise self._absent(f"name {name!r}", "a name that `icae store list` shows")
            if stands_for is not None:
                _require_same(name, key, stands_for)
            self._db.execute("DELETE FROM names WHERE name = ?", [name])
        return key

    def remove(self, key: str) -> StoredMemory:
        """Drop a memory, named by its key or the first digits of it, and all of its names."""
        with self._writing():
            memory_id = self._id_of_prefix(key)
            record = self._stored(memory_id)
            self._db.execute("DELETE FROM names WHERE memory_id = ?", [memory_id])
            self._db.execute("DELETE FROM memories WHERE id = ?", [memory_id])
        return record

    def collect(self) -> tuple[int, int]:
        """Drop the memories that have no name and give their space back.

        Returns:
            How many were dropped, and by how many bytes the store became smaller.
        """
        with sqlite_file.translated(self._path):
            before = self._size()
            with sqlite_file.writing(self._db):
                dropped = self._db.execute(
                    "DELETE FROM memories WHERE id NOT IN (SELECT memory_id FROM names)"
                ).rowcount
            # A script, since `execute` stops after the first page that is given back.
            self._db.executescript("PRAGMA incremental_vacuum")
            after = self._size()
            # Only what is in the log already moves; another process at work may prevent it.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return dropped, before - after

    def verify(self) -> list[str]:
        """Read everything and say what is wrong; nothing is changed."""
        with sqlite_file.translated(self._path):
            return sqlite_check.problems_of(self._db)

    def wait_at_most(self, seconds: float) -> None:
        """Wait for other processes that long from now on, in place of 30 s."""
        self._db.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def require_writable(self, *, commit: bool = False) -> None:
        """Try whether the store can be changed, with `commit` by writing as much as a page."""
        with sqlite_file.translated(self._path):
            sqlite_file.try_to_write(self._db, commit=commit)

    def close(self) -> None:
        """Let go of the store; it cannot be used afterwards."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with sqlite_file.translated(self._path), sqlite_file.writing(self._db):
            yield

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with sqlite_file.translated(self._path), sqlite_file.reading(self._db):
            yield

    def _add(self, item: NewMemory, row: Row, data: bytes) -> Added:
        key = str(row["key"])
        if item.replaces is not None:
            _require_same(item.name, self._key_named(item.name), item.replaces)
        there = self._id_of(key)
        memory_id = self._insert(item.memory, row, data) if there is None else there
        return self._named(item.name, memory_id, key, new=there is None)

    def _insert(self, memory: Memory, row: Row, data: bytes) -> int:
        """Store a memory with its bytes and passages; the index follows by trigger."""
        row = {**row, "added_at": datetime.now(UTC).isoformat(timespec="microseconds")}
        memory_id = self._db.execute(_insert_into("memories", row), row).lastrowid
        assert memory_id is not None  # an INSERT that did not raise has one
        self._db.execute("INSERT INTO contents VALUES (?, ?)", [memory_id, data])
        for passage in passages_of(memory):
            own = {"memory_id": memory_id, "words": indexed_text(passage.text), **asdict(passage)}
            self._db.execute(_insert_into("passages", own), own)
        return memory_id

    def _named(self, name: str, memory_id: int, key: str, *, new: bool) -> Added:
        """Let a name stand for a memory."""
        before = self._key_named(name)
        if before != key:
            self._db.execute("INSERT OR REPLACE INTO names VALUES (?, ?)", [name, memory_id])
        replaced = None if before == key else before
        stored = self._stored(memory_id)
        return Added(name=name, key=key, new=new, replaced=replaced, stored=stored)

    def _key_named(self, name: str) -> str | None:
        row = self._db.execute(
            "SELECT key FROM names JOIN memories ON memories.id = memory_id WHERE name = ?", [name]
        ).fetchone()
        return None if row is None else str(row["key"])

    def _stored(self, memory_id: int) -> StoredMemory:
        return _record(self._db.execute(f"{_RECORD} WHERE id = ?", [memory_id]).fetchone())

    def _id_of(self, key: str) -> int | None:
        row = self._db.execute("SELECT id FROM memories WHERE key = ?", [key]).fetchone()
        return None if row is None else int(row["id"])

    def _resolve(self, reference: str) -> int:
        """Id of a memory by a name or key."""
        check_name(reference)
        key = self._key_named(reference)
        return self._id_of_prefix(reference if key is None else key)

    def _id_of_prefix(self, key: str) -> int:
        """Id of the one memory whose key starts like this."""
        check_name(key)
        expected = f"a name, or at least {MIN_PREFIX} digits of a key, as `icae store list` shows"
        if len(key) < MIN_PREFIX or not all(c in "0123456789abcdef" for c in key):
            raise self._absent(repr(key), expected)
        rows = self._db.execute(
            "SELECT id FROM memories WHERE key >= ? AND key < ? LIMIT 2", [key, key + "g"]
        ).fetchall()
        if not rows:
            raise self._absent(repr(key), expected)
        if len(rows) > 1:
            raise StoreError(
                "The start of the key fits several memories.", got=key, fix="Give more digits."
            )
        return int(rows[0]["id"])

    def _size(self) -> int:
        """Bytes of the database, without its log."""
        pages = self._db.execute("PRAGMA page_count").fetchone()[0]
        return int(pages * self._db.execute("PRAGMA page_size").fetchone()[0])

    def _absent(self, got: str, expected: str) -> MissingMemoryError:
        return MissingMemoryError(
            f"There is no such memory in {self.location}.",
            got=got,
            expected=expected,
            fix="Look it up with `icae store list`.",
        )


def _require_same(name: str, now: str | None, expected: str) -> None:
    """Refuse to change what another process has changed."""
    if now != expected:
        raise ConflictError(
            f"{name} was changed by somebody else in the meantime.",
            got="no memory of that name" if now is None else f"memory {now}",
            expected=f"memory {expected}, of which this is a change",
            fix="Nothing was written. Read it again and do the change again.",
        )


def _insert_into(table: str, row: Mapping[str, object]) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES (:{', :'.join(row)})"


def _record(row: sqlite3.Row) -> StoredMemory:
    return StoredMemory(
        names=tuple(json.loads(row["names"])),
        provenance=from_dict(
            Provenance, {"key_values": None} | json.loads(row["provenance"]), where="provenance"
        ),
        settings=json.loads(row["settings"]),
        **{name: row[name] for name in _AS_STORED},
    )


def _hit(row: sqlite3.Row, query: str) -> SearchHit:
    own = f"{row['name']}/{row['document_name']}"
    return SearchHit(
        document=row["name"] if row["documents"] == 1 else own,
        document_index=row["document"],
        snippet=snippet_of(row["text"], query),
        **{name: row[name] for name in _AS_FOUND},
    )
