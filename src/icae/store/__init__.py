"""Memory stores: many memories under the user's names, stored once each and searchable.

A store is one SQLite file. Needs no model: torch and transformers are never imported.
"""

from __future__ import annotations

from icae.store.keys import compressor_settings, memory_key
from icae.store.records import Added, NewMemory, SearchHit, Settings, StoredMemory
from icae.store.retrieval import DEFAULT_BUDGET, Retrieved, retrieve, retrieve_readable
from icae.store.sqlite import MemoryStore

open_store = MemoryStore.open
create_store = MemoryStore.create

__all__ = [
    "DEFAULT_BUDGET",
    "Added",
    "MemoryStore",
    "NewMemory",
    "Retrieved",
    "SearchHit",
    "Settings",
    "StoredMemory",
    "compressor_settings",
    "create_store",
    "memory_key",
    "open_store",
    "retrieve",
    "retrieve_readable",
]
