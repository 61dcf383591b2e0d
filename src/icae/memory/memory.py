"""A memory: documents, each of spans that own what the decoder gets in their place."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from icae.config.parsing import check
from icae.config.types import FloatArray, TokenIds
from icae.errors import InputError
from icae.memory import edit
from icae.memory.checks import check_text
from icae.memory.document import MemoryDocument
from icae.memory.fidelity import TokenFidelity, join_token_fidelity
from icae.memory.payload import Embeddings, ReadablePayload, Verbatim
from icae.memory.provenance import Provenance
from icae.memory.span import Span


def _this_version() -> str:
    # By name: a static import would tie this layer to all that the package re-exports.
    return f"icae {import_module('icae').__version__}"


@dataclass(frozen=True, kw_only=True, repr=False)
class MemoryContent:
    """What a memory and the header of its file say: documents, what made them, and their figures.

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

    def __repr__(self) -> str:
        names = ", ".join(repr(document.name) for document in self.documents[:3])
        more = ", ..." if len(self.documents) > 3 else ""
        held = "not measured" if self.fidelity is None else f"{self.fidelity:.3f}"
        return (
            f"{type(self).__name__}({names}{more}: {self.tokens} tokens in "
            f"{len(self.spans)} spans, {self.positions} positions, fidelity {held})"
        )

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
        """Index of a document that may be counted from the end; an InputError if there is none."""
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


@dataclass(frozen=True, kw_only=True, repr=False)
class Memory(MemoryContent):
    """Compressed documents, which the decoder gets span by span.

    Memories are equal if all they hold is, arrays by value; as these can be changed in
    place, a memory has no hash. A document is named by its index, from 0, or negative
    from the end; edits give a new memory.

    Raises:
        ConfigError: If there is no document, or slots are not what its models make.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for span in self.spans:
            if isinstance(span.payload, ReadablePayload):
                span.payload.require_fit(self.provenance)

    def _repr_html_(self) -> str:
        """As a notebook shows it: figures, and the text, its spans shaded by fidelity."""
        from icae.memory.fidelity_page import fidelity_html  # which shows memories

        return fidelity_html(self)

    @property
    def slots(self) -> FloatArray:
        """The slots of all spans, float32 [K, D]; K may be 0."""
        payloads = (span.payload for span in self.spans)
        return Embeddings.gather(payloads, self.provenance).slots_KD

    @property
    def verbatim_ids(self) -> TokenIds:
        """The token ids of all verbatim spans, int64 [N]; N may be 0."""
        payloads = (span.payload for span in self.spans)
        return Verbatim.gather(payloads, self.provenance).ids

    @property
    def token_fidelity(self) -> TokenFidelity | None:
        """How faithfully each token is held; None if that was not measured of all."""
        return join_token_fidelity([span.token_fidelity for span in self.spans])

    def span_source(self, index: int) -> str | None:
        """The text of a span, or None if it was not kept; an InputError for no such span."""
        self._require_span(index)
        span = self.spans[index]
        source = self.documents[self.document_of[index]].source
        return None if source is None else source[span.char_start : span.char_end]

    def _require_span(self, index: int) -> None:
        if not 0 <= index < len(self.spans):
            raise InputError(
                "The memory has no such span.",
                got=f"span {index}",
                expected=f"0..{len(self.spans) - 1}",
            )

    def without_source(self) -> Memory:
        """The same memory without the text of its documents."""
        return self.with_documents(document.without_source() for document in self.documents)

    def with_documents(self, documents: Iterable[MemoryDocument]) -> Memory:
        """A memory of other documents, made by the same models.

        The fidelity of single tokens is kept if it is known of all, as in a file.
        """
        documents = tuple(documents)
        spans = [span for document in documents for span in document.spans]
        if any(span.token_fidelity is None for span in spans):
            documents = tuple(document.without_token_fidelity() for document in documents)
        return replace(self, documents=documents)

    def __add__(self, other: Memory) -> Memory:
        """The documents of both memories, in order, as one memory; see `merge`."""
        return merge([self, other]) if isinstance(other, Memory) else NotImplemented

    def select(self, spans: Sequence[int]) -> Memory:
        """A memory of some of the spans.

        Spans that follow each other become one document that holds just their part of the text,
        named for its characters; a document that is selected as a whole stays as it is. An
        InputError if there is no such span, or a text that is cut was not kept.
        """
        if not spans:
            raise InputError("There is nothing to select.", got="no span", expected="at least one")
        runs: list[tuple[int, int]] = []
        for index in spans:
            self._require_span(index)
            follows = runs and runs[-1][1] == index
            if follows and self.document_of[index - 1] == self.document_of[index]:
                runs[-1] = (runs[-1][0], index + 1)
            else:
                runs.append((index, index + 1))
        return self.with_documents(self._part(first, end) for first, end in runs)

    def _part(self, first: int, end: int) -> MemoryDocument:
        """Spans of one document, counted within the memory, as a document."""
        document = self.document_of[first]
        start = self.span_range(document).start
        return edit.part(self.documents[document], first - start, end - start)

    def slice(self, char_start: int, char_end: int, *, document: int = 0) -> Memory:
        """A memory of the spans of a document that overlap ``char_start..char_end``.

        The range of characters (code points) is widened to whole spans. An InputError if there is
        no such text, or it was not kept.
        """
        own = self.documents[self.document_index(document)]
        first, end = edit.overlapping(own, char_start, char_end)
        return self.with_documents([edit.part(own, first, end)])

    def replace_spans(
        self,
        document: int,
        first: int,
        end: int,
        replacement: Memory | None,
        *,
        token_ids_sha256: str | None = None,
    ) -> Memory:
        """A memory with other text, or none, in place of the spans ``first..end`` of a document.

        `first` and `end` count within the document; an empty run inserts before `first`. The
        replacement is a memory of one document, the new text alone; the digest that of the token
        ids of the whole new text, if known.

        Raises:
            InputError: If there are no such spans, no other would be left, a text was not
                kept, or the replacement has several documents.
            IncompatibleMemoryError: If the two were made by different models.
        """
        if replacement is not None:
            _require_match(self, replacement)
            if len(replacement.documents) != 1:
                raise InputError(
                    "A document cannot be put together from several.",
                    got=f"a replacement of {len(replacement.documents)} documents",
                    expected="a memory of one document",
                )
        index = self.document_index(document)
        documents = list(self.documents)
        documents[index] = edit.splice(
            documents[index],
            first,
            end,
            None if replacement is None else replacement.documents[0],
            token_ids_sha256=token_ids_sha256,
        )
        return self.with_documents(documents)

    def save(self, path: str | Path) -> None:
        """Write an ``.icae`` file, wholly or not at all; a MemoryFileError if that fails."""
        from icae.memory import file

        file.write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Memory:
        """Read an ``.icae`` file and check all of it; a MemoryFileError if that fails."""
        from icae.memory import file

        return file.read(path)


def merge(memories: Sequence[Memory]) -> Memory:
    """The documents of at least one memory, in order, as one memory made as the first one.

    An IncompatibleMemoryError if two were made by different models.
    """
    for memory in memories:
        _require_match(memories[0], memory)
    documents = (document for memory in memories for document in memory.documents)
    return memories[0].with_documents(documents)


def _require_match(memory: Memory, other: Memory) -> None:
    """Refuse to join memories that were made by different models."""
    memory.provenance.require_match(
        other.provenance,
        what_self=f"the memory of {_names(memory)}",
        what_other=f"The memory of {_names(other)}",
    )


def _names(memory: Memory) -> str:
    names = [document.name for document in memory.documents]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
