"""Opening a store by its location; another backend would be told by its name."""

from __future__ import annotations

from icae.store.base import MemoryStore
from icae.store.sqlite import SqliteStore


def open_store(location: str) -> MemoryStore:
    """Open a store that exists.

    Args:
        location: A SQLite file.

    Raises:
        StoreError: If there is none, it is another file or of a newer version.
    """
    return SqliteStore.open(location)


def create_store(location: str) -> MemoryStore:
    """Open a store, which is made if there is none.

    Args:
        location: A SQLite file.

    Raises:
        StoreError: As for `open_store`, or if it cannot be made.
    """
    return SqliteStore.create(location)
