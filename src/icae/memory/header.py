"""The header of a memory file: everything about a memory but its arrays and its text.

In a header, and only there, a span says which rows of the tensors are its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from icae.config.parsing import check, from_dict
from icae.config.types import SpanKind
from icae.errors import ConfigError
from icae.memory.checks import check_sha256
from icae.memory.document import MemoryDocument
from icae.memory.forms import FORMS
from icae.memory.memory import MemoryContent
from icae.memory.payload import Unread
from icae.memory.provenance import Provenance
from icae.memory.span import Span
from icae.memory.strict_json import read_strict, write_canonical


@dataclass(frozen=True, kw_only=True, repr=False)
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
        size = self.source_bytes
        good = size is None or size >= 0
        check(good, "source_bytes is out of range.", size, ">= 0, or null")

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

    A ConfigError if it is not JSON, has a key too many or too few, a value of the wrong type or out
    of range, or parts that do not fit together.
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
    return MemoryHeader(
        documents=tuple(_documents(record)),
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


def _documents(record: _Record) -> Iterator[MemoryDocument]:
    """The documents without their text, the payloads of their spans unread."""
    spans: dict[int, list[Span]] = defaultdict(list)
    for own in record.spans:
        start, end = _rows(own, FORMS[own.kind].row)
        said = {name: getattr(own, name) for name in _OF_A_SPAN}
        payload = Unread(kind=own.kind, positions=end - start)
        spans[own.document].append(Span(payload=payload, **said))
    for number, said_of in enumerate(record.documents):
        said = {f.name: getattr(said_of, f.name) for f in fields(said_of) if f.name != "tokens"}
        document = MemoryDocument(source=None, spans=tuple(spans[number]), **said)
        what = f"The spans do not cover the document {document.name!r}."
        held, wanted = f"{document.tokens} tokens", f"{said_of.tokens} tokens"
        check(held == wanted, what, held, wanted)
        yield document


_ADDED: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "header": {"token_fidelity": False, "verbatim_count": 0},
        "spans": {
            "kind": "slots",
            "verbatim_start": 0,
            "verbatim_end": 0,
            "refine_steps": 0,
            "refine_seconds": 0.0,
        },
    },
    3: {"spans": {"written_back": None}},
    4: {"spans": {"recall": None, "sha256": None}, "provenance": {"key_values": None}},
}
"""Version -> part of the header -> the keys that it added, and what older files say by them."""


def _as_of_now(raw: Any, version: int) -> Any:
    """A header of any version with the keys of this one; it may have none that came later."""
    if version >= 4 or not isinstance(raw, dict):
        return raw
    if version < 2:
        documents = raw.get("documents")
        for document in documents if isinstance(documents, list) else ():
            if isinstance(document, dict) and document.get("token_ids_sha256", "") is None:
                raise ConfigError("header: wrong type or value.", got="no token_ids_sha256")
    added: dict[str, dict[str, Any]] = {"header": {}, "spans": {}, "provenance": {}}
    for later in range(version + 1, 5):
        for part, keys in _ADDED[later].items():
            added[part] |= keys
    header = _extended(raw, added["header"], "header")
    if "provenance" in raw:
        header["provenance"] = _extended(raw["provenance"], added["provenance"], "provenance")
    if isinstance(raw.get("spans"), list):
        spans = enumerate(raw["spans"])
        header["spans"] = [_extended(own, added["spans"], f"spans[{i}]") for i, own in spans]
    return header


def _extended(raw: Any, added: dict[str, Any], where: str) -> Any:
    """A record of an old version with the keys added later; what is no record as it is."""
    if not isinstance(raw, dict):
        return raw
    early = sorted(raw.keys() & added.keys())
    if early:
        raise ConfigError(f"header: {where}: unknown key.", got=", ".join(early))
    return {**raw, **added}
