"""The header of a memory file: everything about a memory but its arrays and its text.

In a header, and only there, a span says which rows of the tensors are its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from icae.config.parsing import check, from_dict
from icae.config.types import SpanKind
from icae.errors import ConfigError
from icae.memory.checks import check_sha256
from icae.memory.content import MemoryContent
from icae.memory.document import MemoryDocument
from icae.memory.forms import FORMS
from icae.memory.payload import Unread
from icae.memory.provenance import Provenance
from icae.memory.span import Span
from icae.memory.strict_json import read_strict, write_canonical


@dataclass(frozen=True, kw_only=True)
class MemoryHeader(MemoryContent):
    """What a memory file says about itself; no tensor is read for it.

    The documents have no source, and the payloads of their spans are unread.

    Attributes:
        source_bytes: Size of the text of all documents, decompressed, or None if no text
            is kept.
        has_token_fidelity: Whether the file holds the fidelity of every token.
        file_bytes: Size of the file in bytes.
        format_version: Version of the format it is written in.
        span_sha256: Digest of what each span's rows hold; none of versions before 4.
    """

    source_bytes: int | None
    has_token_fidelity: bool
    file_bytes: int
    format_version: int
    span_sha256: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.source_bytes is None or self.source_bytes >= 0,
            "source_bytes is out of range.",
            self.source_bytes,
            ">= 0, or null",
        )

    @property
    def has_source(self) -> bool:
        """Whether the file keeps the text of at least one document."""
        return self.source_bytes is not None


@dataclass(frozen=True, kw_only=True)
class _DocumentRecord:
    """A document as the header stores it."""

    name: str
    sha256: str
    chars: int
    tokens: int
    token_ids_sha256: str | None


@dataclass(frozen=True, kw_only=True)
class _SpanRecord:
    """A span as the header stores it: with its document, and its rows of each tensor."""

    document: int
    token_start: int
    token_end: int
    char_start: int
    char_end: int
    slot_start: int
    slot_end: int
    verbatim_start: int
    verbatim_end: int
    kind: SpanKind
    ratio: float
    fidelity: float | None
    refine_steps: int
    refine_seconds: float
    written_back: bool | None
    recall: float | None
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The header as it is stored."""

    created_by: str
    documents: tuple[_DocumentRecord, ...]
    provenance: Provenance
    slot_count: int
    source_bytes: int | None
    spans: tuple[_SpanRecord, ...]
    token_fidelity: bool
    verbatim_count: int


_OF_A_SPAN = {f.name for f in fields(Span)} & {f.name for f in fields(_SpanRecord)}
"""What a span and its record say in the same words."""


_ROWS = tuple(dict.fromkeys(form.row for form in FORMS.values()))
"""What rows are called: those of slots of either form, and of verbatim tokens."""


def write_header(
    memory: MemoryContent,
    *,
    source_bytes: int | None,
    has_token_fidelity: bool,
    span_sha256: Sequence[str],
) -> str:
    """The header of a memory as canonical JSON; the rest as in `MemoryHeader`."""
    rows: Counter[str] = Counter()
    spans: list[dict[str, Any]] = []
    for document, span, sha256 in zip(memory.document_of, memory.spans, span_sha256, strict=True):
        record = {name: getattr(span, name) for name in _OF_A_SPAN}
        record |= {"document": document, "kind": span.kind, "sha256": sha256}
        record |= {f"{row}_start": rows[row] for row in _ROWS}
        rows[FORMS[span.kind].row] += span.positions
        record |= {f"{row}_end": rows[row] for row in _ROWS}
        spans.append(record)
    documents = [
        {f.name: getattr(document, f.name) for f in fields(_DocumentRecord)}
        for document in memory.documents
    ]
    return write_canonical(
        {
            "created_by": memory.created_by,
            "documents": documents,
            "provenance": asdict(memory.provenance),
            "source_bytes": source_bytes,
            "spans": spans,
            "token_fidelity": has_token_fidelity,
            **{f"{row}_count": rows[row] for row in _ROWS},
        }
    )


def parse_header(text: str, *, version: int, file_bytes: int) -> MemoryHeader:
    """Read a header, strictly.

    Raises:
        ConfigError: If it is not JSON, has a key too many or too few, a value of the
            wrong type or out of range, or parts that do not fit together.
    """
    try:
        raw = _as_of_now(read_strict(text), version)
        record = from_dict(_Record, raw, where="header")
    except (ValueError, OverflowError) as error:
        raise ConfigError("header: not valid JSON.", got=str(error)) from error
    _check_rows(record)
    digests = tuple(span.sha256 or "" for span in record.spans) if version >= 4 else ()
    for digest in digests:
        check_sha256("span.sha256", digest)
    spans: dict[int, list[Span]] = defaultdict(list)
    for span in record.spans:
        spans[span.document].append(_span(span))
    return MemoryHeader(
        documents=tuple(_document(own, spans[i]) for i, own in enumerate(record.documents)),
        provenance=record.provenance,
        created_by=record.created_by,
        source_bytes=record.source_bytes,
        has_token_fidelity=record.token_fidelity,
        file_bytes=file_bytes,
        format_version=version,
        span_sha256=digests,
    )


def _check_rows(record: _Record) -> None:
    """Check that spans go through the documents, and through the rows of each tensor."""
    rows = dict.fromkeys(_ROWS, 0)
    document = 0
    for index, span in enumerate(record.spans):
        check(
            document <= span.document < len(record.documents),
            f"Span {index} is of a document that does not exist or comes earlier.",
            span.document,
            f"{document}..{len(record.documents) - 1}",
        )
        document = span.document
        for row in _ROWS:
            start, end = _rows(span, row)
            own = row == FORMS[span.kind].row
            check(
                start == rows[row] and (end > start if own else end == start),
                f"Span {index} has other {row} rows than come next.",
                (start, end),
                f"from {rows[row]} on{'' if own else ', none'}",
            )
            rows[row] = end
    for row, end in rows.items():
        count = getattr(record, f"{row}_count")
        check(end == count, f"The spans do not cover the {row} rows.", end, f"{count} rows")


def _rows(span: _SpanRecord, row: str) -> tuple[int, int]:
    return getattr(span, f"{row}_start"), getattr(span, f"{row}_end")


def _document(record: _DocumentRecord, spans: Sequence[Span]) -> MemoryDocument:
    """A document without its text, the payloads of its spans unread."""
    document = MemoryDocument(
        name=record.name,
        sha256=record.sha256,
        chars=record.chars,
        source=None,
        token_ids_sha256=record.token_ids_sha256,
        spans=tuple(spans),
    )
    check(
        document.tokens == record.tokens,
        f"The spans do not cover the document {record.name!r}.",
        f"{document.tokens} tokens",
        f"{record.tokens} tokens",
    )
    return document


def _span(record: _SpanRecord) -> Span:
    start, end = _rows(record, FORMS[record.kind].row)
    return Span(
        payload=Unread(kind=record.kind, positions=end - start),
        **{name: getattr(record, name) for name in _OF_A_SPAN},
    )


_SINCE_2: dict[str, Any] = {"token_fidelity": False, "verbatim_count": 0}
"""What version 2 added to the header, with what it says about a memory of version 1."""

_OF_A_SPAN_SINCE_2: dict[str, Any] = {
    "kind": "slots",
    "verbatim_start": 0,
    "verbatim_end": 0,
    "refine_steps": 0,
    "refine_seconds": 0.0,
}
"""What version 2 added to a span."""

_OF_A_SPAN_SINCE_3: dict[str, Any] = {"written_back": None}
"""What version 3 added to a span."""

_OF_A_SPAN_SINCE_4: dict[str, Any] = {"recall": None, "sha256": None}
"""What version 4 added to a span."""

_OF_PROVENANCE_SINCE_4: dict[str, Any] = {"key_values": None}
"""What version 4 added to the provenance."""


def _as_of_now(raw: Any, version: int) -> Any:
    """A header of any version with the keys of this one."""
    if version >= 4 or not isinstance(raw, dict):
        return raw
    header, added = raw, _OF_A_SPAN_SINCE_4
    if version < 3:
        added = _OF_A_SPAN_SINCE_3 | added
    if version < 2:
        header, added = _extended(raw, _SINCE_2, "header"), _OF_A_SPAN_SINCE_2 | added
        for document in _list(raw, "documents"):
            if isinstance(document, dict) and document.get("token_ids_sha256", "") is None:
                raise ConfigError("header: wrong type or value.", got="no token_ids_sha256")
    made_by = header.get("provenance")
    if isinstance(made_by, dict):
        made_by = _extended(made_by, _OF_PROVENANCE_SINCE_4, "provenance")
        header = {**header, "provenance": made_by}
    spans = [
        _extended(span, added, f"spans[{i}]") if isinstance(span, dict) else span
        for i, span in enumerate(_list(raw, "spans"))
    ]
    return {**header, "spans": spans} if spans else header


def _list(raw: Mapping[str, Any], key: str) -> list[Any]:
    value = raw.get(key)
    return value if isinstance(value, list) else []


def _extended(raw: dict[str, Any], added: dict[str, Any], where: str) -> dict[str, Any]:
    """A record of an old version with the keys added later, none of which it may have."""
    early = sorted(raw.keys() & added.keys())
    if early:
        raise ConfigError(f"header: {where}: unknown key.", got=", ".join(early))
    return {**raw, **added}
