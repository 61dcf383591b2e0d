"""Which backend a store has follows from its name."""

from __future__ import annotations

from icae.store.base import MemoryStore
from icae.store.sqlite import SqliteStore

LANCE_SUFFIX = ".lance"
"""A store whose name ends like this is kept by Lance."""


def open_store(location: str) -> MemoryStore:
    """Open a store that exists.

    Args:
        location: A SQLite file; or a Lance folder or URI, which ends in ``.lance``.

    Raises:
        StoreError: If there is none, it is another file or of a newer version.
        MissingDependencyError: If Lance is needed and not installed.
    """
    if is_lance(location):
        from icae.store.lance import LanceStore

        return LanceStore.open(location)
    return SqliteStore.open(location)


def create_store(location: str) -> MemoryStore:
    """Open a store, which is made if there is none.

    Args:
        location: As for `open_store`.

    Raises:
        StoreError: As for `open_store`, or if it cannot be made.
        MissingDependencyError: If Lance is needed and not installed.
    """
    if is_lance(location):
        from icae.store.lance import LanceStore

        return LanceStore.create(location)
    return SqliteStore.create(location)


def is_lance(location: str) -> bool:
    """Whether a location is that of a Lance store."""
    return location.rstrip("/").endswith(LANCE_SUFFIX)
