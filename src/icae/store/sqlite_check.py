"""Checking a SQLite store: the file, every memory, its names, passages and words."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict

from icae.errors import IcaeError
from icae.memory import memory_from_bytes
from icae.store.keys import row_of
from icae.store.passages import passages_of
from icae.store.sqlite_file import error_code, reading, rollback

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def problems_of(db: sqlite3.Connection) -> list[str]:
    """Everything that is wrong with a store, as of one moment; with the key of a memory if of one.

    The index of the words is checked where the store can be written, since SQLite takes
    the write lock for it; nothing is changed.

    Raises:
        sqlite3.Error: If the store cannot be read for another reason than damage.
    """
    found: list[str] = []
    try:
        with reading(db):
            for row in db.execute("PRAGMA integrity_check").fetchall():
                if row[0] != "ok":
                    found.append(f"SQLite: {row[0]}")
            for row in db.execute("PRAGMA foreign_key_check").fetchall():
                found.append(f"row {row[1]} of {row[0]} names a row of {row[2]} that is not there")
            for row in db.execute("SELECT * FROM memories ORDER BY key"):
                found += [f"{row['key']}: {problem}" for problem in _check_memory(db, row)]
        if not _words_are_indexed(db):
            found.append("the words of the passages are not indexed as they are")
    except sqlite3.DatabaseError as error:
        if error_code(error) not in _DAMAGE:
            raise
        found.append(f"SQLite: {error}")
    return found


def _check_memory(db: sqlite3.Connection, row: sqlite3.Row) -> Iterator[str]:
    """What is wrong with one memory."""
    content = db.execute("SELECT data FROM contents WHERE memory_id = ?", [row["id"]]).fetchone()
    if content is None:
        yield "its bytes are missing"
        return
    data = content["data"]
    if not isinstance(data, bytes) or hashlib.sha256(data).hexdigest() != row["sha256"]:
        yield "its bytes do not match their digest"
        return
    try:
        memory = memory_from_bytes(data, where="the memory")
    except IcaeError as error:
        yield f"{error.message} ({error.got})"
        return
    try:
        for field, value in row_of(memory, data, json.loads(row["settings"])).items():
            if row[field] != value:
                yield f"its {field} is {row[field]!r}, {value!r} by its bytes"
    except (TypeError, ValueError):
        yield "its settings cannot be read"
    columns = ("document", "document_name", "span_first", "span_end", "char_start", "char_end")
    stored = db.execute(
        f"SELECT {', '.join(columns)}, positions, text FROM passages WHERE memory_id = ?"
        " ORDER BY id",
        [row["id"]],
    ).fetchall()
    if [dict(passage) for passage in stored] != [asdict(p) for p in passages_of(memory)]:
        yield "its passages are not those of its text"


def _words_are_indexed(db: sqlite3.Connection) -> bool:
    """Whether the index has the words of the passages; of a read-only store that is not known."""
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO passage_words (passage_words, rank) VALUES ('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        if error_code(error) not in {*_DAMAGE, sqlite3.SQLITE_READONLY}:
            raise
        return error_code(error) == sqlite3.SQLITE_READONLY
    finally:
        rollback(db)
    return True
