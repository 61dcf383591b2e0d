"""What a memory store is: the interface that every backend has, and its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from icae.memory import Memory, Provenance

Setting = str | int | float | bool
Settings = Mapping[str, Setting]
"""What was asked of the compressor, for example ``{"ratio": 4.0, "verify": True}``."""


@dataclass(frozen=True, kw_only=True)
class NewMemory:
    """A memory to put into a store.

    Attributes:
        name: What the user calls it; the name moves here if another memory had it.
        memory: The memory.
        settings: What was asked of the compressor, or None to derive it from the memory.
        replaces: Key of the memory that this is a change of: the name must stand for it still,
            or nothing is added. None if the name may stand for anything.
    """

    name: str
    memory: Memory
    settings: Settings | None = None
    replaces: str | None = None


@dataclass(frozen=True, kw_only=True)
class Added:
    """What adding a memory did.

    Attributes:
        name: The name that now stands for the memory.
        key: Content address of the memory.
        new: Whether the memory was not in the store before.
        replaced: Key of the memory that the name stood for before, or None.
    """

    name: str
    key: str
    new: bool
    replaced: str | None


@dataclass(frozen=True, kw_only=True)
class StoredMemory:
    """What a store knows about a memory without reading it.

    Attributes:
        key: Content address: SHA-256 over text, models and settings.
        names: The user's names for it, sorted; without any, `collect` drops it.
        text_sha256: Digest of the text, or of the digests of several documents.
        provenance: What made the slots.
        settings: What was asked of the compressor.
        documents: Number of documents.
        passages: Number of passages that can be found; 0 if no text was kept.
        tokens: Context tokens.
        positions: Decoder positions that the memory takes.
        fidelity: Share of the tokens that the decoder reproduces (0..1), or None.
        bytes: Size as an ``.icae`` file.
        sha256: Digest of those bytes.
        added_at: When it was added, ISO 8601, UTC.
    """

    key: str
    names: tuple[str, ...]
    text_sha256: str
    provenance: Provenance
    settings: Settings
    documents: int
    passages: int
    tokens: int
    positions: int
    fidelity: float | None
    bytes: int
    sha256: str
    added_at: str


@dataclass(frozen=True, kw_only=True)
class SearchHit:
    """A passage that was found.

    Attributes:
        key: Content address of its memory.
        document: What to cite: the name of the memory; of several documents in one
            memory, with the document's own name after a slash.
        document_index: Index of the document in the memory.
        span_first: First span of the passage in the memory.
        span_end: One past its last span.
        char_start: First character (code point) in the document.
        char_end: One past the last character.
        positions: Decoder positions that the passage takes.
        score: How well it matches; higher is better, comparable within one search only.
        snippet: Some of its text around the first word that was found.
    """

    key: str
    document: str
    document_index: int
    span_first: int
    span_end: int
    char_start: int
    char_end: int
    positions: int
    score: float
    snippet: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that `verify` found wrong with a memory, or with the store as a whole (None)."""

    key: str | None
    message: str


@dataclass(frozen=True, kw_only=True)
class Collected:
    """How many memories `collect` dropped, and by how many bytes the store became smaller."""

    memories: int
    bytes: int


class MemoryStore(Protocol):
    """Memories under the user's names, each stored once, with search over their text.

    A reference is a name, a key, or the first digits of one key (at least 8). Every
    method raises StoreError if the store cannot be read or written, or a reference stands
    for no memory or for several; the store is then as it was before.
    """

    @property
    def location(self) -> str:
        """Where the store is, for messages."""
        ...

    def add(self, items: Sequence[NewMemory]) -> list[Added]:
        """Put memories into the store, all of them or none; returns what became of each.

        Raises:
            ConflictError: If a name stands for another memory than the one to be replaced.
        """
        ...

    def link(self, key: str, *, name: str) -> Added | None:
        """Give the memory with a key a name, which moves here if another memory had it.

        Returns None if the store has no such memory.
        """
        ...

    def records(self, *, under: str = "") -> list[StoredMemory]:
        """All memories, or those with a name that starts so; in the order of the names.

        Memories without a name come last.
        """
        ...

    def get(self, reference: str) -> StoredMemory:
        """What the store knows about a memory."""
        ...

    def load(self, reference: str) -> Memory:
        """Read a memory and check all of it; a StoreError if it is damaged."""
        ...

    def export(self, reference: str, path: Path) -> None:
        """Write a memory to an ``.icae`` file, which replaces one that exists.

        Raises:
            StoreError: As for `load`.
            MemoryFileError: If the file cannot be written.
        """
        ...

    def search(
        self, query: str, *, limit: int = 10, made_by: Provenance | None = None
    ) -> list[SearchHit]:
        """Find passages by the words of any text: those with more and rarer ones come first.

        Only memories that have a name are searched, and if `made_by` is given, of these only
        those that fit it.

        Raises:
            InputError: If the query has no word.
        """
        ...

    def remove_name(self, name: str) -> str:
        """Drop a name; the memory, whose key is returned, stays until `collect`."""
        ...

    def remove(self, key: str) -> StoredMemory:
        """Drop a memory, named by its key or the first digits of it, and all of its names."""
        ...

    def collect(self) -> Collected:
        """Drop the memories that have no name and give their space back."""
        ...

    def verify(self) -> list[Problem]:
        """Read everything and report what is wrong; nothing is changed."""
        ...

    def close(self) -> None:
        """Let go of the store; it cannot be used afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...
