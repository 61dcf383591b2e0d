"""What memories and the headers of their files have in common: documents and what made them."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, field
from importlib import import_module

from icae.config.parsing import check
from icae.errors import InputError
from icae.memory.checks import check_text
from icae.memory.document import MemoryDocument
from icae.memory.provenance import Provenance
from icae.memory.span import Span


def _this_version() -> str:
    # By name: a static import would tie this layer to all that the package re-exports.
    return f"icae {import_module('icae').__version__}"


@dataclass(frozen=True, kw_only=True)
class MemoryContent:
    """Documents, what made them, and the figures of all together.

    Attributes:
        documents: The documents, in order; at least one.
        provenance: What made the slots.
        created_by: Program and version that made the memory.

    Raises:
        ConfigError: If there is no document, or slots are of another form than its models make.
    """

    documents: tuple[MemoryDocument, ...]
    provenance: Provenance
    created_by: str = field(default_factory=_this_version)

    def __post_init__(self) -> None:
        check_text("created_by", self.created_by)
        check(bool(self.documents), "A memory has no documents.", 0, "at least one document")
        own = self.provenance.slot_kind
        for kind in {span.kind for span in self.spans} - {"tokens"}:
            check(kind == own, "The slots are of another form than those models make.", kind, own)

    @functools.cached_property
    def spans(self) -> tuple[Span, ...]:
        """The spans of all documents, in order."""
        return tuple(span for document in self.documents for span in document.spans)

    @functools.cached_property
    def document_of(self) -> tuple[int, ...]:
        """For each span the index of its document."""
        return tuple(i for i, document in enumerate(self.documents) for _ in document.spans)

    def span_range(self, document: int) -> range:
        """Which spans are those of a document; an InputError if there is no such document."""
        index = self.document_index(document)
        starts = [0, *itertools.accumulate(len(own.spans) for own in self.documents)]
        return range(starts[index], starts[index + 1])

    def document_index(self, document: int) -> int:
        """Index from 0 of a document that may be counted from the end (negative).

        Raises:
            InputError: If there is no such document.
        """
        count = len(self.documents)
        if not -count <= document < count:
            raise InputError(
                "The memory has no such document.",
                got=f"document {document}",
                expected=f"0..{count - 1}, or -1 for the last",
            )
        return document % count

    @property
    def tokens(self) -> int:
        """Context tokens of all documents."""
        return sum(document.tokens for document in self.documents)

    @property
    def slot_count(self) -> int:
        """Number of slots K."""
        return sum(span.slots for span in self.spans)

    @property
    def positions(self) -> int:
        """Decoder positions that the memory takes: its slots and its verbatim tokens."""
        return sum(span.positions for span in self.spans)

    @property
    def verbatim_tokens(self) -> int:
        """Number of tokens that are kept as they are."""
        return self.positions - self.slot_count

    @property
    def ratio(self) -> float:
        """Compression ratio reached: context tokens per decoder position."""
        return self.tokens / self.positions

    @property
    def recall(self) -> float | None:
        """Mean recall (0..1) of the spans that were asked, short ones cannot be; None of none."""
        known = [span.recall for span in self.spans if span.recall is not None]
        return sum(known) / len(known) if known else None

    @property
    def fidelity(self) -> float | None:
        """Fidelity over all tokens (0..1), or None if a span was not measured."""
        total = 0.0
        for span in self.spans:
            if span.fidelity is None:
                return None
            total += span.fidelity * span.tokens
        return total / self.tokens
