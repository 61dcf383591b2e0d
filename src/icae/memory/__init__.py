"""Memories: documents of spans, what the decoder gets in their place, and the file.

Needs NumPy and Zstandard only; torch and transformers are never imported.
"""

from __future__ import annotations

from icae.memory.document import MemoryDocument, hash_token_ids
from icae.memory.fidelity import TokenFidelity
from icae.memory.file import memory_bytes, memory_from_bytes, memory_size, read_header
from icae.memory.header import MemoryHeader
from icae.memory.key_values import KeyValueSlots
from icae.memory.locked_file import LockedFile, locked
from icae.memory.memory import Memory, merge
from icae.memory.payload import Embeddings, Payload, PayloadReader, Unread, Verbatim
from icae.memory.provenance import Provenance
from icae.memory.span import Span

__all__ = [
    "Embeddings",
    "KeyValueSlots",
    "LockedFile",
    "Memory",
    "MemoryDocument",
    "MemoryHeader",
    "Payload",
    "PayloadReader",
    "Provenance",
    "Span",
    "TokenFidelity",
    "Unread",
    "Verbatim",
    "hash_token_ids",
    "locked",
    "memory_bytes",
    "memory_from_bytes",
    "memory_size",
    "merge",
    "read_header",
]
