"""Memory stores: many memories under the user's names, stored once each and searchable.

A store is one SQLite file. Needs no model: torch and transformers are never imported.
"""

from __future__ import annotations

from icae.store.base import (
    Added,
    Collected,
    MemoryStore,
    NewMemory,
    Problem,
    SearchHit,
    Settings,
    StoredMemory,
)
from icae.store.keys import compressor_settings, memory_key
from icae.store.retrieval import Citation, Retrieved, retrieve
from icae.store.sqlite import SqliteStore

open_store = SqliteStore.open
create_store = SqliteStore.create

__all__ = [
    "Added",
    "Citation",
    "Collected",
    "MemoryStore",
    "NewMemory",
    "Problem",
    "Retrieved",
    "SearchHit",
    "Settings",
    "SqliteStore",
    "StoredMemory",
    "compressor_settings",
    "create_store",
    "memory_key",
    "open_store",
    "retrieve",
]
