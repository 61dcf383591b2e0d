"""A memory: the slots of one or more documents, with what they are slots of.

Shapes: K slots, D hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import numpy as np

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
from icae.types import FloatArray


def _this_version() -> str:
    # By name: a static import would tie this layer to all that the package re-exports.
    return f"icae {import_module('icae').__version__}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """Compressed documents.

    Two memories are equal if all their fields are, slots compared by value. A memory has
    no hash, as its slots can be changed in place.

    Attributes:
        slots: float32 [K, D], in the input-embedding space of the decoder.
        spans: What each run of slots stands for, in order; the spans of document i come
            before those of document i + 1, cover its tokens exactly, and together
            cover the K slots exactly.
        documents: The documents, in order.
        provenance: What made the slots.
        created_by: Program and version that made the memory.

    Raises:
        ConfigError: If the parts do not fit together, or a slot is not finite.
    """

    slots: FloatArray = field(repr=False)
    spans: tuple[MemorySpan, ...]
    documents: tuple[MemoryDocument, ...]
    provenance: Provenance
    created_by: str = field(default_factory=_this_version)

    def __post_init__(self) -> None:
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
        check_text("memory.created_by", self.created_by)
        check_tiling(self.spans, self.documents, len(slots))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Memory):
            return NotImplemented
        return self._described() == other._described() and np.array_equal(self.slots, other.slots)

    def _described(self) -> tuple[object, ...]:
        return self.spans, self.documents, self.provenance, self.created_by

    @property
    def tokens(self) -> int:
        """Context tokens of all documents."""
        return token_count(self.spans)

    @property
    def slot_count(self) -> int:
        """Number of slots K."""
        return len(self.slots)

    @property
    def ratio(self) -> float:
        """Compression ratio reached: context tokens per slot."""
        return self.tokens / self.slot_count

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
        self.provenance.require_match(
            other.provenance,
            what_self=f"the memory of {_names(self)}",
            what_other=f"The memory of {_names(other)}",
        )
        shifted = tuple(
            replace(
                span,
                document=span.document + len(self.documents),
                slot_start=span.slot_start + self.slot_count,
                slot_end=span.slot_end + self.slot_count,
            )
            for span in other.spans
        )
        return replace(
            self,
            slots=np.concatenate([self.slots, other.slots]),
            spans=self.spans + shifted,
            documents=self.documents + other.documents,
        )

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


def _names(memory: Memory) -> str:
    names = [document.name for document in memory.documents]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
