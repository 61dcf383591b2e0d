"""The file of a SQLite store: create it whole, open it, translate what SQLite says.

Nothing is written outside a transaction that was begun as a write transaction, and
every commit reaches the disk before it returns (WAL, ``synchronous = FULL``).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from icae.config.atomic_write import flush_folder
from icae.errors import StoreError
from icae.store import migrations

LOCK_TIMEOUT_S = 30.0
"""How long a store waits for another process before it gives up, s."""

_MAGIC = b"SQLite format 3\x00"
_KEPT_LOG_BYTES = 16_000_000
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def create(path: Path) -> None:
    """Make an empty store, unless there is a file already.

    The store is made under another name and linked to its place, so that it is there as
    a whole or not at all, whenever the process ends and whoever else creates it.

    Raises:
        StoreError: If it cannot be made.
    """
    if path.exists():
        return
    log = Path(f"{path}-wal")
    if log.exists():  # SQLite would apply it to the new store
        raise StoreError(
            f"The store {path} is missing, but its log is there.",
            got=f"{log} without {path.name}",
            fix=f"Put {path.name} back, or delete {log.name} to start an empty store.",
        )
    temporary = path.parent / f".icae-{secrets.token_hex(8)}.tmp"
    try:
        # Nobody else on the machine reads what lies in it; SQLite gives its logs the same mode.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with translated(path), closing(_connect(temporary, "rwc")) as db:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            with writing(db):
                migrations.migrate(db)
        os.link(temporary, path)
        flush_folder(path.parent)
    except FileExistsError:
        return  # another process was faster
    except OSError as error:
        raise StoreError(
            f"The store {path} cannot be created.",
            got=str(error.strerror or error),
            expected="a folder that exists, can be written to, and has hard links",
            fix="Choose another place for the store.",
        ) from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{temporary}{suffix}").unlink(missing_ok=True)


def connect(path: Path) -> sqlite3.Connection:
    """Open a store, and take an older one to the newest version.

    Raises:
        StoreError: If there is none, it is another file, is of a newer version, or
            cannot be opened.
    """
    _require_sqlite(path)
    with translated(path):
        db = _connect(path, "rw")
        try:
            try:
                found = migrations.application_id(db)
            except sqlite3.OperationalError:
                if not _is_frozen(path):
                    raise
                # SQLite cannot put its lock file beside it, and nobody can write it.
                db.close()
                db = _connect(path, "ro&immutable=1")
                found = migrations.application_id(db)
            db.execute("PRAGMA synchronous = FULL")
            version = migrations.schema_version(db)
            _require_store(path, found, version)
            if version < migrations.SCHEMA_VERSION:
                _migrate(db)
        except BaseException:
            db.close()
            raise
    return db


def _migrate(db: sqlite3.Connection) -> None:
    """Take a store to the newest version; one that cannot be written is read as it is."""
    try:
        with writing(db):
            migrations.migrate(db)
    except sqlite3.OperationalError as error:
        if error_code(error) != sqlite3.SQLITE_READONLY:
            raise


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=LOCK_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA foreign_keys = ON")
    db.execute(f"PRAGMA journal_size_limit = {_KEPT_LOG_BYTES}")
    return db


def _is_frozen(path: Path) -> bool:
    """Whether this user cannot write beside the store, and nobody is writing it now."""
    beside = [Path(f"{path}{suffix}") for suffix in ("-wal", "-shm")]
    return not os.access(path.parent, os.W_OK) and not any(file.exists() for file in beside)


def _require_sqlite(path: Path) -> None:
    """Refuse what is missing or no SQLite file at all."""
    fix = "Check the path, or make a store with `icae store add`."
    try:
        if not path.exists():
            raise StoreError(f"There is no store {path}.", got="no such file", fix=fix)
        if not path.is_file():
            raise StoreError(
                f"{path} is not a store.", got="a folder or device", expected="a file", fix=fix
            )
        with path.open("rb") as stream:
            start = stream.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(
            f"The store {path} cannot be opened.", got=str(error.strerror or error), fix=fix
        ) from error
    if start != _MAGIC:
        raise StoreError(
            f"{path} is not a store.",
            got=f"a file that starts with {start!r}" if start else "an empty file",
            expected="a SQLite file",
            fix=fix,
        )


def _require_store(path: Path, found: int, version: int) -> None:
    """Refuse a SQLite file of another program or of a newer version."""
    if found != migrations.APPLICATION_ID or version < 1:
        raise StoreError(
            f"{path} is not a store.",
            got=f"a SQLite file of another program (application id {found})",
            expected=f"application id {migrations.APPLICATION_ID}",
            fix="Give the path of a store that `icae store add` made.",
        )
    if version > migrations.SCHEMA_VERSION:
        raise StoreError(
            f"The store {path} was written by a newer icae.",
            got=f"store version {version}",
            expected=f"store version {migrations.SCHEMA_VERSION} or lower",
            fix="Upgrade: pip install --upgrade icae",
        )


@contextmanager
def writing(db: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: all that the block does, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        rollback(db)
        raise


@contextmanager
def reading(db: sqlite3.Connection) -> Iterator[None]:
    """A read transaction: the block sees the store as it is at its first read."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        rollback(db)


def try_to_write(db: sqlite3.Connection, *, commit: bool) -> None:
    """Begin to write, and with `commit` write what is there already once more."""
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute(f"PRAGMA user_version = {migrations.schema_version(db)}")
        if commit:
            db.execute("COMMIT")
    finally:
        rollback(db)


def rollback(db: sqlite3.Connection) -> None:
    """End a transaction without effect; SQLite may have done so itself."""
    if db.in_transaction:
        db.execute("ROLLBACK")


def error_code(error: sqlite3.Error) -> int:
    """The primary result code of SQLite; 0 for an error of the module itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite into StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        code = error_code(error)
        if code == 0:  # a misuse of the module, not something that happened to the store
            raise
        message, expected, fix = next(said for codes, *said in _ERRORS if code in codes)
        got = "it is locked" if code in _BUSY else str(error)
        raise StoreError(message.format(path=path), got=got, expected=expected, fix=fix) from error


_ERRORS = (
    (
        _BUSY,
        "The store {path} is in use by another process.",
        "to get the lock",
        "Try again when the other process is done; nothing was changed.",
    ),
    (
        {sqlite3.SQLITE_FULL},
        "There is no space left for the store {path}.",
        "space for what is added and for a log of it",
        "Free some disk space; nothing was changed.",
    ),
    (
        {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH},
        "The store {path} cannot be written.",
        "a file and a folder that you may write to",
        "Change their permissions, or copy the store; nothing was changed.",
    ),
    (
        {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT},
        "The store {path} is damaged.",
        "a sound SQLite file",
        "Restore it from a copy, or make it again from the documents.",
    ),
    (
        {sqlite3.SQLITE_TOOBIG},
        "The memory is too large for the store {path}.",
        "less than 1 GB in one memory",
        "Cut the document into parts and add each.",
    ),
    (
        range(256),
        "The store {path} cannot be read or written.",
        "a file and a folder that you may read and write",
        "Check path, permissions and disk; nothing was changed.",
    ),
)
"""What went wrong by SQLite's primary result code: message, expected, fix."""
