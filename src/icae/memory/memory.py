"""A memory: one or more documents as slots and verbatim tokens, with what they stand for.

Shapes: K slots, D hidden, N verbatim tokens, T context tokens of all documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icae.config.types import FloatArray, TokenIds
from icae.errors import InputError
from icae.memory.checks import check, check_text
from icae.memory.provenance import Provenance
from icae.memory.spans import (
    MemoryDocument,
    MemorySpan,
    check_tiling,
    mean_fidelity,
    token_count,
)
from icae.memory.token_fidelity import TokenFidelity, check_token_fidelity

MAX_TOKEN_ID = 2**32 - 1
"""Largest token id that a memory file can hold."""


def _this_version() -> str:
    # By name: a static import would tie this layer to all that the package re-exports.
    return f"icae {import_module('icae').__version__}"


def _no_ids() -> TokenIds:
    return np.zeros(0, dtype=np.int64)


def _check_ids(ids: NDArray[np.int64]) -> None:
    check(
        isinstance(ids, np.ndarray) and ids.dtype == np.int64 and ids.ndim == 1,
        "The verbatim token ids are not a list of int64.",
        f"{getattr(ids, 'dtype', type(ids).__name__)} {getattr(ids, 'shape', '')}",
        "a NumPy array, int64 [N]",
    )
    if len(ids):
        lowest, highest = int(ids.min()), int(ids.max())
        check(
            lowest >= 0 and highest <= MAX_TOKEN_ID,
            "A verbatim token id is out of range.",
            lowest if lowest < 0 else highest,
            f"0..{MAX_TOKEN_ID}",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """Compressed documents.

    The decoder gets a memory span by span: the slots of one, the token ids of another
    that is kept verbatim. Two memories are equal if all their fields are, arrays compared
    by value. A memory has no hash, as its arrays can be changed in place.

    Attributes:
        slots: float32 [K, D], in the input-embedding space of the decoder; K may be 0.
        spans: What each run of slots or verbatim tokens stands for, in order; the spans
            of document i come before those of document i + 1, cover its tokens exactly,
            and together cover the K slots and the N verbatim tokens exactly.
        documents: The documents, in order.
        provenance: What made the slots.
        created_by: Program and version that made the memory.
        verbatim_ids: int64 [N], the token ids of the verbatim spans.
        token_fidelity: How faithfully each of the T tokens is held, or None if that was
            not measured of all of them.

    Raises:
        ConfigError: If the parts do not fit together, or a slot is not finite.
    """

    slots: FloatArray = field(repr=False)
    spans: tuple[MemorySpan, ...]
    documents: tuple[MemoryDocument, ...]
    provenance: Provenance
    created_by: str = field(default_factory=_this_version)
    verbatim_ids: TokenIds = field(default_factory=_no_ids, repr=False)
    token_fidelity: TokenFidelity | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._check_slots()
        _check_ids(self.verbatim_ids)
        check_text("memory.created_by", self.created_by)
        check_tiling(
            self.spans,
            self.documents,
            slot_count=len(self.slots),
            verbatim_count=len(self.verbatim_ids),
        )
        if self.token_fidelity is not None:
            check_token_fidelity(self.token_fidelity, self.spans)

    def _check_slots(self) -> None:
        slots = self.slots
        check(
            isinstance(slots, np.ndarray) and slots.dtype == np.float32 and slots.ndim == 2,
            "The slots are not a matrix of float32.",
            f"{getattr(slots, 'dtype', type(slots).__name__)} {getattr(slots, 'shape', '')}",
            "a NumPy array, float32 [K, D]",
        )
        check(
            slots.shape[1] == self.provenance.hidden_size,
            "The slots have another width than the decoder.",
            slots.shape[1],
            f"{self.provenance.hidden_size} (provenance.hidden_size)",
        )
        finite = np.isfinite(slots).all(axis=1)
        check(
            bool(finite.all()),
            "Some slots are not finite.",
            f"{int((~finite).sum())} of {len(slots)} slots",
            "no NaN and no infinity",
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Memory):
            return NotImplemented
        return (
            self._described() == other._described()
            and np.array_equal(self.slots, other.slots)
            and np.array_equal(self.verbatim_ids, other.verbatim_ids)
        )

    def _described(self) -> tuple[object, ...]:
        return self.spans, self.documents, self.provenance, self.created_by, self.token_fidelity

    @property
    def tokens(self) -> int:
        """Context tokens of all documents."""
        return token_count(self.spans)

    @property
    def slot_count(self) -> int:
        """Number of slots K."""
        return len(self.slots)

    @property
    def verbatim_tokens(self) -> int:
        """Number of tokens N that are kept as they are."""
        return len(self.verbatim_ids)

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

    def span_source(self, index: int) -> str | None:
        """The text that a span stands for.

        Args:
            index: Which span, from 0.

        Returns:
            Its characters of the source, or None if the source was not kept.

        Raises:
            InputError: If there is no such span.
        """
        if not 0 <= index < len(self.spans):
            raise InputError(
                "The memory has no such span.",
                got=f"span {index}",
                expected=f"0..{len(self.spans) - 1}",
            )
        span = self.spans[index]
        source = self.documents[span.document].source
        return None if source is None else source[span.char_start : span.char_end]

    def without_source(self) -> Memory:
        """The same memory without the text of its documents."""
        return replace(
            self, documents=tuple(replace(document, source=None) for document in self.documents)
        )

    def __add__(self, other: Memory) -> Memory:
        """The documents of both memories, in order, as one memory.

        Args:
            other: A memory of the same provenance.

        Returns:
            A memory with the slots of both; names in its provenance are this one's.

        Raises:
            IncompatibleMemoryError: If the two were made by different models.
        """
        if not isinstance(other, Memory):
            return NotImplemented
        from icae.memory.selection import merge

        return merge([self, other])

    def select(self, spans: Sequence[int]) -> Memory:
        """A memory of some of the spans (see `icae.memory.selection.select`).

        Args:
            spans: Indices of the spans, at least one, in the order wanted.

        Raises:
            InputError: If there is no such span, or a text that is cut was not kept.
        """
        from icae.memory import selection

        return selection.select(self, spans)

    def slice(self, char_start: int, char_end: int, *, document: int = 0) -> Memory:
        """A memory of the spans that overlap a range of characters.

        Args:
            char_start: First character (code point).
            char_end: One past the last.
            document: Index of the document, from 0; negative from the end.

        Raises:
            InputError: If there is no such text, or it was not kept.
        """
        from icae.memory import selection

        return selection.slice_characters(self, char_start, char_end, document=document)

    def extend(self, document: int, addition: Memory) -> Memory:
        """A memory with more text at the end of a document (see `editing.extend`).

        Args:
            document: Index of the document, from 0; negative from the end.
            addition: A memory of one document: the additional text alone.

        Raises:
            InputError: If there is no such document, or a text was not kept.
            IncompatibleMemoryError: If the two were made by different models.
        """
        from icae.memory import editing

        return editing.extend(self, document, addition)

    def replace_spans(self, document: int, first: int, end: int, replacement: Memory) -> Memory:
        """A memory with other text in place of spans (see `editing.replace_spans`).

        Args:
            document: Index of the document, from 0; negative from the end.
            first: First span to replace, counted within the document.
            end: One past the last; `first` to insert before that span.
            replacement: A memory of one document: the new text alone.

        Raises:
            InputError: If there are no such spans, or a text was not kept.
            IncompatibleMemoryError: If the two were made by different models.
        """
        from icae.memory import editing

        return editing.replace_spans(self, document, first, end, replacement)

    def drop_spans(self, document: int, first: int, end: int) -> Memory:
        """A memory without some spans and their text (see `editing.drop_spans`).

        Args:
            document: Index of the document, from 0; negative from the end.
            first: First span to drop, counted within the document.
            end: One past the last.

        Raises:
            InputError: If there are no such spans, no other, or the text was not kept.
        """
        from icae.memory import editing

        return editing.drop_spans(self, document, first, end)

    def delete_document(self, document: int) -> Memory:
        """A memory without one of its documents.

        Args:
            document: Index of the document, from 0; negative from the end.

        Raises:
            InputError: If there is no such document, or it is the only one.
        """
        from icae.memory import selection

        return selection.delete_document(self, document)

    def save(self, path: str | Path) -> None:
        """Write the memory to a file (see `icae.memory.save_memory`).

        Args:
            path: File to write, by convention with the suffix ``.icae``.

        Raises:
            MemoryFileError: If it cannot be written.
        """
        from icae.memory.file_format import save_memory

        save_memory(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Memory:
        """Read a memory from a file (see `icae.memory.load_memory`).

        Args:
            path: An ``.icae`` file.

        Raises:
            MemoryFileError: If it cannot be read or is not a sound memory file.
        """
        from icae.memory.file_format import load_memory

        return load_memory(path)
