"""A memory made ready to be stored: everything that needs no store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from icae.errors import InputError
from icae.memory import Memory, memory_bytes
from icae.store.base import NewMemory, Settings
from icae.store.keys import memory_key, settings_of, text_digest
from icae.store.passages import Passage, passages_of

MAX_NAME_CHARS = 4096
"""Longest name of a memory."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A memory with its content address, its bytes as a file and their digest, its passages."""

    name: str
    key: str
    memory: Memory
    settings: Settings
    text_sha256: str
    data: bytes
    sha256: str
    passages: tuple[Passage, ...]


def prepare(item: NewMemory) -> Prepared:
    """Make a memory ready to be stored.

    Raises:
        InputError: If the name cannot be used.
        MemoryFileError: If the memory cannot be written as bytes.
    """
    check_name(item.name)
    data = memory_bytes(item.memory)
    sha256 = hashlib.sha256(data).hexdigest()
    text = text_digest(item.memory)
    settings = settings_of(item.memory, sha256) if item.settings is None else item.settings
    return Prepared(
        name=item.name,
        key=memory_key(text, item.memory.provenance, settings),
        memory=item.memory,
        settings=settings,
        text_sha256=text,
        data=data,
        sha256=sha256,
        passages=tuple(passages_of(item.memory)),
    )


def check_name(name: str) -> None:
    """Refuse a name of a memory that cannot be stored or shown.

    Raises:
        InputError: If it is blank, too long, has a line break or is not valid Unicode.
    """
    reason = None
    if not name.strip():
        reason = "a blank name"
    elif len(name) > MAX_NAME_CHARS:
        reason = f"{len(name)} characters"
    elif any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in name):
        reason = f"{name[:80]!r}"
    if reason is not None:
        raise InputError(
            "That is no name for a memory.",
            got=reason,
            expected=f"1..{MAX_NAME_CHARS} characters of text on one line",
        )
