"""Checking a SQLite store: the file, every memory, its names, passages and words."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict

from icae.errors import IcaeError
from icae.memory import Memory, memory_from_bytes
from icae.store.base import Problem
from icae.store.keys import memory_key, text_digest
from icae.store.passages import passages_of
from icae.store.prepared import figures_of
from icae.store.sqlite_file import reading, rollback

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def problems_of(db: sqlite3.Connection) -> list[Problem]:
    """Everything that is wrong with a store, as of one moment.

    The index of the words is checked where the store can be written, since SQLite takes
    the write lock for it; nothing is changed.

    Raises:
        sqlite3.Error: If the store cannot be read for another reason than damage.
    """
    found: list[Problem] = []
    try:
        with reading(db):
            for row in db.execute("PRAGMA integrity_check").fetchall():
                if row[0] != "ok":
                    found.append(Problem(key=None, message=f"SQLite: {row[0]}"))
            for row in db.execute("PRAGMA foreign_key_check").fetchall():
                message = f"row {row[1]} of {row[0]} names a row of {row[2]} that is not there"
                found.append(Problem(key=None, message=message))
            for row in db.execute("SELECT * FROM memories ORDER BY key"):
                found += [Problem(key=row["key"], message=m) for m in _check_memory(db, row)]
        found += _check_words(db)
    except sqlite3.DatabaseError as error:
        if _code(error) not in _DAMAGE:
            raise
        found.append(Problem(key=None, message=f"SQLite: {error}"))
    return found


def _code(error: sqlite3.DatabaseError) -> int:
    """The primary result code; 0 for an error of the module itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


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
    yield from _check_record(row, memory, data)
    columns = ("document", "document_name", "span_first", "span_end", "char_start", "char_end")
    stored = db.execute(
        f"SELECT {', '.join(columns)}, positions, text FROM passages WHERE memory_id = ?"
        " ORDER BY id",
        [row["id"]],
    ).fetchall()
    if [dict(passage) for passage in stored] != [asdict(p) for p in passages_of(memory)]:
        yield "its passages are not those of its text"


def _check_record(row: sqlite3.Row, memory: Memory, data: bytes) -> Iterator[str]:
    """What a record says about a memory that its bytes do not."""
    for field, value in figures_of(memory, data).items():
        if row[field] != value:
            yield f"its {field} is {row[field]!r}, {value!r} by its bytes"
    try:
        settings = json.loads(row["settings"])
        key = memory_key(text_digest(memory), memory.provenance, settings)
    except (TypeError, ValueError):
        yield "its settings cannot be read"
        return
    if key != row["key"]:
        yield "its key is not that of its text, models and settings"


def _check_words(db: sqlite3.Connection) -> list[Problem]:
    """What is wrong with the index of the words."""
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO passage_words (passage_words, rank) VALUES ('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        if _code(error) == sqlite3.SQLITE_READONLY:
            return []
        if _code(error) not in _DAMAGE:
            raise
        return [Problem(key=None, message="the words of the passages are not indexed as they are")]
    finally:
        rollback(db)
    return []
