"""The header of a memory file: everything about a memory but its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from icae.config.parsing import from_dict
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
    """What a memory file says about itself; its tensors are not read for it.

    Attributes:
        documents: The documents, each without its source.
        spans: The spans, in order.
        provenance: What made the slots.
        created_by: Program and version that made the memory.
        has_source: Whether the file keeps the text of at least one document.
        has_token_fidelity: Whether the file holds the fidelity of every token.
        slot_count: Number of slots K.
        verbatim_tokens: Number of tokens N that are kept as they are.
        file_bytes: Size of the file in bytes.
        format_version: Version of the format it is written in.
    """

    documents: tuple[MemoryDocument, ...]
    spans: tuple[MemorySpan, ...]
    provenance: Provenance
    created_by: str
    has_source: bool
    has_token_fidelity: bool
    slot_count: int
    verbatim_tokens: int
    file_bytes: int
    format_version: int

    @property
    def tokens(self) -> int:
        """Context tokens of all documents."""
        return token_count(self.spans)

    @property
    def positions(self) -> int:
        """Decoder positions that the memory takes: its slots and its verbatim tokens."""
        return self.slot_count + self.verbatim_tokens

    @property
    def ratio(self) -> float:
        """Compression ratio reached: context tokens per decoder position."""
        return self.tokens / self.positions

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
    token_ids_sha256: str | None


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
        token_fidelity: Whether the fidelity of every token is kept.
        verbatim_count: Number of verbatim tokens N.

    Raises:
        ConfigError: If the parts do not fit together.
    """

    created_by: str
    documents: tuple[DocumentRecord, ...]
    provenance: Provenance
    slot_count: int
    source_bytes: int | None
    spans: tuple[MemorySpan, ...]
    token_fidelity: bool
    verbatim_count: int

    def __post_init__(self) -> None:
        check_text("created_by", self.created_by)
        check(
            self.source_bytes is None or self.source_bytes >= 0,
            "source_bytes is out of range.",
            self.source_bytes,
            ">= 0, or null",
        )
        check_tiling(
            self.spans,
            self.with_sources(None),
            slot_count=self.slot_count,
            verbatim_count=self.verbatim_count,
        )

    @property
    def tokens(self) -> int:
        """Context tokens T of all documents."""
        return token_count(self.spans)

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
            "token_fidelity": memory.token_fidelity is not None,
            "verbatim_count": memory.verbatim_tokens,
        }
    )


def parse_header(text: str, *, version: int) -> HeaderRecord:
    """Read a header, strictly.

    Args:
        text: JSON.
        version: Version of the format it is written in, 1 to 3.

    Raises:
        ConfigError: If it is not JSON, has a key too many or too few, a value of the
            wrong type or out of range, or parts that do not fit together.
    """
    try:
        return from_dict(HeaderRecord, _READERS[version](read_strict(text)), where="header")
    except (ValueError, OverflowError) as error:
        raise ConfigError("header: not valid JSON.", got=str(error)) from error


_ADDED_TO_HEADER: dict[str, Any] = {"token_fidelity": False, "verbatim_count": 0}
_ADDED_BY_3: dict[str, Any] = {"written_back": None}
"""What version 3 added to spans, with what it says about a span of version 2."""

_ADDED_TO_SPANS: dict[str, Any] = {
    "kind": "slots",
    "verbatim_start": 0,
    "verbatim_end": 0,
    "refine_steps": 0,
    "refine_seconds": 0.0,
}
"""What version 2 added, with what it says about a memory of version 1."""


def _from_version_1(raw: Any) -> Any:
    """A header of version 1 as one of now: all spans are slots, no token measured."""
    header = _extended(raw, _ADDED_TO_HEADER, "header")
    if isinstance(header, dict):
        header = _with_spans_extended(header, _ADDED_TO_SPANS | _ADDED_BY_3)
        documents = header.get("documents")
        for document in documents if isinstance(documents, list) else ():
            if isinstance(document, dict) and document.get("token_ids_sha256", "") is None:
                raise ConfigError("header: wrong type or value.", got="no token_ids_sha256")
    return header


def _from_version_2(raw: Any) -> Any:
    """A header of version 2 as one of now: no span was written back."""
    return _complete(_with_spans_extended(raw, _ADDED_BY_3))


def _complete(raw: Any) -> Any:
    """A header whose spans leave nothing to the defaults."""
    spans = raw.get("spans") if isinstance(raw, dict) else None
    required = _ADDED_TO_SPANS.keys() | _ADDED_BY_3.keys()
    for i, span in enumerate(spans if isinstance(spans, list) else ()):
        missing = sorted(required - span.keys()) if isinstance(span, dict) else ()
        if missing:
            raise ConfigError(
                f"header: spans[{i}]: a key is missing.", got="nothing", expected=missing[0]
            )
    return raw


def _with_spans_extended(raw: Any, added: dict[str, Any]) -> Any:
    """A header with the keys that later versions added to its spans."""
    spans = raw.get("spans") if isinstance(raw, dict) else None
    if not isinstance(spans, list):
        return raw
    return {**raw, "spans": [_extended(s, added, f"spans[{i}]") for i, s in enumerate(spans)]}


def _extended(raw: Any, added: dict[str, Any], where: str) -> Any:
    """A record of an old version with the keys added later, none of which it may have."""
    if not isinstance(raw, dict):
        return raw
    early = sorted(raw.keys() & added.keys())
    if early:
        raise ConfigError(f"header: {where}: unknown key.", got=", ".join(early))
    return {**raw, **added}


_READERS = {1: _from_version_1, 2: _from_version_2, 3: _complete}
