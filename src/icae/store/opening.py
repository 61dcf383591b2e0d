"""Opening a store by its location; another backend would be told by its name."""

from __future__ import annotations

from icae.store.base import MemoryStore
from icae.store.sqlite import SqliteStore


def open_store(location: str) -> MemoryStore:
    """Open a store that exists: a SQLite file.

    Raises:
        StoreError: If there is none, it is another file or of a newer version.
    """
    return SqliteStore.open(location)


def create_store(location: str) -> MemoryStore:
    """Open a store, which is made if there is none; a StoreError if that is not possible."""
    return SqliteStore.create(location)
