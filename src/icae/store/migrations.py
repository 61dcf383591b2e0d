"""The tables of a SQLite store, as numbered steps from one version to the next.

A step that was released is never changed; a new one is added. The number of the last
step that a store has seen is its ``user_version``.

memories   one row a memory: its key, what made it, its figures
contents   its bytes, apart, so that listing reads none of them
names      the user's names; several may stand for one memory
passages   its text in pieces that can be found; words: what is indexed where it is not the text
passage_words  the index of the words of the passages (FTS5)
"""

from __future__ import annotations

import sqlite3

from icae.store.passages import indexed_text

APPLICATION_ID = int.from_bytes(b"ICAE", "big")
"""Marks a SQLite file as a memory store."""

_INITIAL = (
    """
    CREATE TABLE memories (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE CHECK (length(key) = 64),
        text_sha256 TEXT NOT NULL,
        maker TEXT NOT NULL,
        provenance TEXT NOT NULL,
        settings TEXT NOT NULL,
        documents INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        positions INTEGER NOT NULL,
        fidelity REAL,
        bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        added_at TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE contents (
        memory_id INTEGER PRIMARY KEY REFERENCES memories (id) ON DELETE CASCADE,
        data BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE names (
        name TEXT PRIMARY KEY,
        memory_id INTEGER NOT NULL REFERENCES memories (id)
    )
    """,
    "CREATE INDEX names_by_memory ON names (memory_id)",
    """
    CREATE TABLE passages (
        id INTEGER PRIMARY KEY,
        memory_id INTEGER NOT NULL REFERENCES memories (id) ON DELETE CASCADE,
        document INTEGER NOT NULL,
        document_name TEXT NOT NULL,
        span_first INTEGER NOT NULL,
        span_end INTEGER NOT NULL,
        char_start INTEGER NOT NULL,
        char_end INTEGER NOT NULL,
        positions INTEGER NOT NULL,
        text TEXT NOT NULL
    )
    """,
    "CREATE INDEX passages_by_memory ON passages (memory_id)",
    """
    CREATE VIRTUAL TABLE passage_words USING fts5 (
        text, content = 'passages', content_rowid = 'id',
        tokenize = 'porter unicode61 remove_diacritics 2'
    )
    """,
    """
    CREATE TRIGGER passage_added AFTER INSERT ON passages BEGIN
        INSERT INTO passage_words (rowid, text) VALUES (new.id, new.text);
    END
    """,
    """
    CREATE TRIGGER passage_removed AFTER DELETE ON passages BEGIN
        INSERT INTO passage_words (passage_words, rowid, text)
        VALUES ('delete', old.id, old.text);
    END
    """,
)

_PAIRS_OF_CHARACTERS = (
    "ALTER TABLE passages ADD COLUMN words TEXT",
    "UPDATE passages SET words = icae_indexed_text(text)",
    "DROP TRIGGER passage_added",
    "DROP TRIGGER passage_removed",
    "DROP TABLE passage_words",
    "CREATE VIEW passage_texts AS SELECT id, coalesce(words, text) AS text FROM passages",
    """
    CREATE VIRTUAL TABLE passage_words USING fts5 (
        text, content = 'passage_texts', content_rowid = 'id',
        tokenize = 'porter unicode61 remove_diacritics 2'
    )
    """,
    "INSERT INTO passage_words (passage_words) VALUES ('rebuild')",
    """
    CREATE TRIGGER passage_added AFTER INSERT ON passages BEGIN
        INSERT INTO passage_words (rowid, text) VALUES (new.id, coalesce(new.words, new.text));
    END
    """,
    """
    CREATE TRIGGER passage_removed AFTER DELETE ON passages BEGIN
        INSERT INTO passage_words (passage_words, rowid, text)
        VALUES ('delete', old.id, coalesce(old.words, old.text));
    END
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_INITIAL, _PAIRS_OF_CHARACTERS)
"""The statements of each step; step n is at index n - 1."""

SCHEMA_VERSION = len(MIGRATIONS)
"""Version of a store that has seen every step."""


def schema_version(db: sqlite3.Connection) -> int:
    """Number of the last step that a store has seen; 0 if it is empty."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def application_id(db: sqlite3.Connection) -> int:
    """What marks the kind of a SQLite file; 0 if nothing does."""
    return int(db.execute("PRAGMA application_id").fetchone()[0])


def migrate(db: sqlite3.Connection) -> None:
    """Take a store to the newest version; call inside a write transaction."""
    db.create_function("icae_indexed_text", 1, indexed_text, deterministic=True)
    for number in range(schema_version(db) + 1, SCHEMA_VERSION + 1):
        for statement in MIGRATIONS[number - 1]:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {number}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
