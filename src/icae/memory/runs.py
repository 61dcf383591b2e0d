"""Runs of spans: the one way in which memories are cut apart and put together.

A run is copied as it is: its slots, its verbatim tokens and its measured fidelity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from icae.errors import InputError
from icae.memory.memory import Memory
from icae.memory.spans import MemoryDocument, MemorySpan, token_offsets
from icae.memory.token_fidelity import TokenFidelity, join_token_fidelity


@dataclass(frozen=True, kw_only=True)
class SpanRun:
    """Consecutive spans of a memory, and where they go in another one.

    Attributes:
        memory: The memory they come from.
        first: Index of the first span.
        end: One past the last.
        document: Index that their document has in the other memory.
        token_shift: Added to their tokens.
        char_shift: Added to their characters.
    """

    memory: Memory
    first: int
    end: int
    document: int
    token_shift: int = 0
    char_shift: int = 0

    @property
    def slot_rows(self) -> slice:
        """Their rows of the slots."""
        spans = self.memory.spans
        return slice(spans[self.first].slot_start, spans[self.end - 1].slot_end)

    @property
    def verbatim_rows(self) -> slice:
        """Their rows of the verbatim token ids."""
        spans = self.memory.spans
        return slice(spans[self.first].verbatim_start, spans[self.end - 1].verbatim_end)


def assemble(base: Memory, runs: Sequence[SpanRun], documents: Sequence[MemoryDocument]) -> Memory:
    """Put runs of spans together.

    Args:
        base: Gives the memory its provenance and `created_by`.
        runs: At least one run, in order.
        documents: The documents that the runs make up.

    Returns:
        The memory; its token fidelity is known if that of every run is.

    Raises:
        ConfigError: If the runs do not make up the documents.
    """
    spans: list[MemorySpan] = []
    slot, row = 0, 0
    for run in runs:
        slot_shift, row_shift = slot - run.slot_rows.start, row - run.verbatim_rows.start
        spans += [
            replace(
                span,
                document=run.document,
                token_start=span.token_start + run.token_shift,
                token_end=span.token_end + run.token_shift,
                char_start=span.char_start + run.char_shift,
                char_end=span.char_end + run.char_shift,
                slot_start=span.slot_start + slot_shift,
                slot_end=span.slot_end + slot_shift,
                verbatim_start=span.verbatim_start + row_shift,
                verbatim_end=span.verbatim_end + row_shift,
            )
            for span in run.memory.spans[run.first : run.end]
        ]
        slot, row = spans[-1].slot_end, spans[-1].verbatim_end
    return replace(
        base,
        slots=np.concatenate([run.memory.slots[run.slot_rows] for run in runs]),
        spans=tuple(spans),
        documents=tuple(documents),
        verbatim_ids=np.concatenate([run.memory.verbatim_ids[run.verbatim_rows] for run in runs]),
        token_fidelity=join_token_fidelity(_token_fidelity(runs)),
    )


def _token_fidelity(runs: Sequence[SpanRun]) -> list[TokenFidelity | None]:
    """The fidelity of the tokens of each run."""
    offsets = {id(run.memory): token_offsets(run.memory.spans) for run in _one_each(runs)}
    result: list[TokenFidelity | None] = []
    for run in runs:
        known, at = run.memory.token_fidelity, offsets[id(run.memory)]
        result.append(None if known is None else known.tokens(at[run.first], at[run.end]))
    return result


def _one_each(runs: Sequence[SpanRun]) -> list[SpanRun]:
    """One run of every memory there is."""
    return list({id(run.memory): run for run in runs}.values())


def whole_documents(memory: Memory, documents: Sequence[int], *, at: int) -> list[SpanRun]:
    """Runs of whole documents.

    Args:
        memory: The memory they come from.
        documents: Indices of the documents, from 0.
        at: Index that the first of them has in the other memory; the rest follow.
    """
    found: dict[int, list[int]] = {}
    for i, span in enumerate(memory.spans):
        found.setdefault(span.document, []).append(i)
    return [
        SpanRun(memory=memory, first=found[d][0], end=found[d][-1] + 1, document=at + n)
        for n, d in enumerate(documents)
    ]


def document_spans(memory: Memory, document: int) -> range:
    """Indices of the spans of a document.

    Args:
        memory: The memory.
        document: Index of the document, from 0; negative from the end.

    Raises:
        InputError: If there is no such document.
    """
    document = document_index(memory, document)
    indices = [i for i, span in enumerate(memory.spans) if span.document == document]
    return range(indices[0], indices[-1] + 1)


def document_index(memory: Memory, document: int) -> int:
    """Index of a document counted from the start.

    Args:
        memory: The memory.
        document: Index of the document, from 0; negative from the end.

    Raises:
        InputError: If there is no such document.
    """
    count = len(memory.documents)
    if not -count <= document < count:
        raise InputError(
            "The memory has no such document.",
            got=f"document {document}",
            expected=f"0..{count - 1}, or -1 for the last",
        )
    return document % count


def rewritten(document: MemoryDocument, text: str, tokens: int) -> MemoryDocument:
    """A document with another text, whose token ids are not known as a whole.

    Args:
        document: Gives its name.
        text: The text.
        tokens: Its length in tokens.
    """
    return replace(
        document,
        sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
        chars=len(text),
        tokens=tokens,
        source=text,
        token_ids_sha256=None,
    )


def source_of(document: MemoryDocument) -> str:
    """The text of a document.

    Raises:
        InputError: If it was not kept.
    """
    if document.source is None:
        raise InputError(
            "The text of a document can only be changed or cut where it was kept.",
            got=f"no source text for {document.name}",
            expected="a memory with its source",
            fix="Compress the document again and keep its text.",
        )
    return document.source


def require_match(memory: Memory, other: Memory) -> None:
    """Refuse to join memories that were made by different models.

    Raises:
        IncompatibleMemoryError: If they were.
    """
    memory.provenance.require_match(
        other.provenance,
        what_self=f"the memory of {_names(memory)}",
        what_other=f"The memory of {_names(other)}",
    )


def _names(memory: Memory) -> str:
    names = [document.name for document in memory.documents]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
