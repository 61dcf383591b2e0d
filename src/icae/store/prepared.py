"""A memory made ready to be stored: everything that needs no store."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

from icae.errors import InputError
from icae.memory import Memory, memory_bytes
from icae.memory.strict_json import write_canonical
from icae.store.base import NewMemory, Settings
from icae.store.keys import maker_hash, memory_key, settings_of, text_digest
from icae.store.passages import Passage, passages_of

MAX_NAME_CHARS = 4096
"""Longest name of a memory."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A memory with its address, figures, bytes as a file, passages, and the key it replaces."""

    name: str
    key: str
    settings: Settings
    figures: dict[str, str | int | float | None]
    data: bytes
    sha256: str
    passages: tuple[Passage, ...]
    replaces: str | None


def prepare(item: NewMemory) -> Prepared:
    """Make a memory ready to be stored; an InputError if the name cannot be used."""
    check_name(item.name)
    data = memory_bytes(item.memory)
    sha256 = hashlib.sha256(data).hexdigest()
    settings = settings_of(item.memory, sha256) if item.settings is None else item.settings
    return Prepared(
        name=item.name,
        key=memory_key(text_digest(item.memory), item.memory.provenance, settings),
        settings=settings,
        figures=figures_of(item.memory, data),
        data=data,
        sha256=sha256,
        passages=tuple(passages_of(item.memory)),
        replaces=item.replaces,
    )


def figures_of(memory: Memory, data: bytes) -> dict[str, str | int | float | None]:
    """What a store records of a memory and its bytes, by column."""
    made_by = {name: said for name, said in asdict(memory.provenance).items() if said is not None}
    return {
        "text_sha256": text_digest(memory),
        "maker": maker_hash(memory.provenance),
        "provenance": write_canonical(made_by),
        "documents": len(memory.documents),
        "tokens": memory.tokens,
        "positions": memory.positions,
        "fidelity": memory.fidelity,
        "bytes": len(data),
    }


def check_name(name: str) -> None:
    """An InputError for a name that is blank, too long, of several lines or no Unicode."""
    if not name.strip():
        got = "a blank name"
    elif len(name) > MAX_NAME_CHARS:
        got = f"{len(name)} characters"
    elif any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in name):
        got = f"{name[:80]!r}"
    else:
        return
    expected = f"1..{MAX_NAME_CHARS} characters of text on one line"
    raise InputError("That is no name for a memory.", got=got, expected=expected)
