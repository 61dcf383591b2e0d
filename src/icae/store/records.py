"""What goes into a store and what comes out of it, beside memories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from icae.memory import Memory, Provenance

Settings = Mapping[str, str | int | float | bool]
"""What was asked of the compressor, for example ``{"ratio": 4.0, "verify": True}``."""


@dataclass(frozen=True, kw_only=True)
class NewMemory:
    """A memory to put into a store.

    Attributes:
        name: What the user calls it; the name moves here if another memory had it.
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
        stored: What the store knows about the memory then.
    """

    name: str
    key: str
    new: bool
    replaced: str | None
    stored: StoredMemory


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
class Passage:
    """Consecutive spans of one document.

    Attributes:
        document: Index of the document in the memory.
        span_first: First span of the passage in the memory.
        span_end: One past its last span.
        char_start: First character (code point) in the document.
        char_end: One past the last character.
        positions: Decoder positions that the passage takes.
    """

    document: int
    document_name: str
    span_first: int
    span_end: int
    char_start: int
    char_end: int
    positions: int
    text: str


@dataclass(frozen=True, kw_only=True)
class SearchHit:
    """A passage that was found, or several that follow each other; see `Passage` for its places.

    Attributes:
        key: Content address of its memory.
        document: What to cite: the name of the memory; of several documents in one
            memory, with the document's own name after a slash.
        document_index: Index of the document in the memory.
        score: How well it matches; higher is better, comparable within one search only.
        text: Its text.
        snippet: Some of that around the first word that was found, of the best of several passages.
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
    text: str
    snippet: str
