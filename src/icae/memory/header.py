"""The header of a memory file: everything about a memory but its slots and its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from icae.config import from_dict
from icae.errors import ConfigError
from icae.memory.checks import check, check_text
from icae.memory.memory import Memory
from icae.memory.provenance import Provenance
from icae.memory.spans import (
    MemoryDocument,
    MemorySpan,
    check_tiling,
    mean_fidelity,
    token_count,
)
from icae.memory.strict_json import read_strict, write_canonical


@dataclass(frozen=True, kw_only=True)
class MemoryHeader:
    """What a memory file says about itself; its slots are not read for it.

    Attributes:
        documents: The documents, each without its source.
        spans: The spans, in order.
        provenance: What made the slots.
        created_by: Program and version that made the memory.
        has_source: Whether the file keeps the text of at least one document.
        slot_count: Number of slots K.
        file_bytes: Size of the file in bytes.
    """

    documents: tuple[MemoryDocument, ...]
    spans: tuple[MemorySpan, ...]
    provenance: Provenance
    created_by: str
    has_source: bool
    slot_count: int
    file_bytes: int

    @property
    def tokens(self) -> int:
        """Context tokens of all documents."""
        return token_count(self.spans)

    @property
    def ratio(self) -> float:
        """Compression ratio reached: context tokens per slot."""
        return self.tokens / self.slot_count

    @property
    def fidelity(self) -> float | None:
        """Fidelity over all tokens (0..1), or None if a span was not measured."""
        return mean_fidelity(self.spans)


@dataclass(frozen=True, kw_only=True)
class DocumentRecord:
    """A document as the header stores it: a `MemoryDocument` without its source."""

    name: str
    sha256: str
    chars: int
    tokens: int
    token_ids_sha256: str


@dataclass(frozen=True, kw_only=True)
class HeaderRecord:
    """The header as it is stored, field by field.

    Attributes:
        created_by: Program and version that made the memory.
        documents: The documents, in order.
        provenance: What made the slots.
        slot_count: Number of slots K.
        source_bytes: Size of the decompressed source, or None if no text is kept.
        spans: The spans, in order.

    Raises:
        ConfigError: If the parts do not fit together.
    """

    created_by: str
    documents: tuple[DocumentRecord, ...]
    provenance: Provenance
    slot_count: int
    source_bytes: int | None
    spans: tuple[MemorySpan, ...]

    def __post_init__(self) -> None:
        check_text("created_by", self.created_by)
        check(
            self.source_bytes is None or self.source_bytes >= 0,
            "source_bytes is out of range.",
            self.source_bytes,
            ">= 0, or null",
        )
        check_tiling(self.spans, self.with_sources(None), self.slot_count)

    def with_sources(self, sources: Sequence[str | None] | None) -> tuple[MemoryDocument, ...]:
        """The documents, with their text put back.

        Args:
            sources: The text of each document or None; None for no text at all.

        Raises:
            ConfigError: If a text is not the one that its document describes.
        """
        texts = [None] * len(self.documents) if sources is None else sources
        return tuple(
            MemoryDocument(**asdict(record), source=text)
            for record, text in zip(self.documents, texts, strict=True)
        )


def write_header(memory: Memory, *, source_bytes: int | None) -> str:
    """The header of a memory as canonical JSON.

    Args:
        memory: The memory.
        source_bytes: Size of its source before compression, or None if none is kept.
    """
    documents = []
    for document in memory.documents:
        record = asdict(document)
        del record["source"]
        documents.append(record)
    return write_canonical(
        {
            "created_by": memory.created_by,
            "documents": documents,
            "provenance": asdict(memory.provenance),
            "slot_count": memory.slot_count,
            "source_bytes": source_bytes,
            "spans": [asdict(span) for span in memory.spans],
        }
    )


def parse_header(text: str) -> HeaderRecord:
    """Read a header, strictly.

    Args:
        text: JSON.

    Raises:
        ConfigError: If it is not JSON, has a key too many or too few, a value of the
            wrong type or out of range, or parts that do not fit together.
    """
    try:
        return from_dict(HeaderRecord, read_strict(text), where="header")
    except (ValueError, OverflowError) as error:
        raise ConfigError("header: not valid JSON.", got=str(error)) from error
