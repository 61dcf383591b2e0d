"""Memories: compressed documents, and the file they are kept in.

Needs NumPy and Zstandard only; torch and transformers are never imported.
"""

from __future__ import annotations

from icae.memory.file_format import (
    load_memory,
    memory_bytes,
    memory_from_bytes,
    read_header,
    save_memory,
)
from icae.memory.header import MemoryHeader
from icae.memory.memory import Memory
from icae.memory.provenance import Provenance
from icae.memory.segments import Segment, memory_of_segments, segment_of_span
from icae.memory.selection import merge
from icae.memory.spans import MemoryDocument, MemorySpan, hash_token_ids
from icae.memory.token_fidelity import TokenFidelity

__all__ = [
    "Memory",
    "MemoryDocument",
    "MemoryHeader",
    "MemorySpan",
    "Provenance",
    "Segment",
    "TokenFidelity",
    "hash_token_ids",
    "load_memory",
    "memory_bytes",
    "memory_from_bytes",
    "memory_of_segments",
    "merge",
    "read_header",
    "save_memory",
    "segment_of_span",
]
