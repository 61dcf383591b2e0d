"""Memories made of parts of others: merging, selecting, slicing, leaving a document out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from icae.errors import InputError
from icae.memory.memory import Memory
from icae.memory.runs import (
    SpanRun,
    assemble,
    document_index,
    document_spans,
    require_match,
    rewritten,
    source_of,
    whole_documents,
)
from icae.memory.spans import MemoryDocument


def merge(memories: Sequence[Memory]) -> Memory:
    """The documents of several memories, in order, as one memory.

    Args:
        memories: At least one memory, all of the same provenance.

    Returns:
        A memory with the slots of all; names in its provenance are the first one's. Its
        token fidelity is known if that of every memory is.

    Raises:
        IncompatibleMemoryError: If two were made by different models.
    """
    first = memories[0]
    runs: list[SpanRun] = []
    documents: list[MemoryDocument] = []
    for memory in memories:
        require_match(first, memory)
        runs += whole_documents(memory, range(len(memory.documents)), at=len(documents))
        documents += memory.documents
    return assemble(first, runs, documents)


def select(memory: Memory, spans: Sequence[int]) -> Memory:
    """A memory of some of the spans.

    Spans that follow each other become one document that holds just their slice of the
    text, named for its characters, as in ``report.txt[1200:2400]``. A document that is
    selected as a whole stays as it is.

    Args:
        memory: The memory.
        spans: Indices of the spans, at least one, in the order wanted.

    Raises:
        InputError: If no span is wanted, there is no such span, or the text of a document
            of which a part is wanted was not kept.
    """
    if not spans:
        raise InputError("There is nothing to select.", got="no span", expected="at least one")
    runs: list[SpanRun] = []
    documents: list[MemoryDocument] = []
    for first, end in _consecutive(memory, spans):
        start, last = memory.spans[first], memory.spans[end - 1]
        document = memory.documents[start.document]
        if start.token_start == 0 and last.token_end == document.tokens:
            token_shift, char_shift = 0, 0
        else:
            token_shift, char_shift = -start.token_start, -start.char_start
            text = source_of(document)[start.char_start : last.char_end]
            name = f"{document.name}[{start.char_start}:{last.char_end}]"
            tokens = last.token_end - start.token_start
            document = replace(rewritten(document, text, tokens), name=name)
        runs.append(
            SpanRun(
                memory=memory,
                first=first,
                end=end,
                document=len(documents),
                token_shift=token_shift,
                char_shift=char_shift,
            )
        )
        documents.append(document)
    return assemble(memory, runs, documents)


def _consecutive(memory: Memory, spans: Sequence[int]) -> list[tuple[int, int]]:
    """First and one past the last index of each run of spans that follow each other."""
    runs: list[tuple[int, int]] = []
    for index in spans:
        memory.span_source(index)  # raises if there is no such span
        follows = (
            runs
            and runs[-1][1] == index
            and memory.spans[index - 1].document == memory.spans[index].document
        )
        if follows:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def slice_characters(memory: Memory, start: int, end: int, *, document: int = 0) -> Memory:
    """A memory of the spans that overlap a range of characters.

    Args:
        memory: The memory.
        start: First character (code point) of the range.
        end: One past the last character.
        document: Index of the document, from 0; negative from the end.

    Returns:
        A memory of one document, which starts and ends where the spans do: the range is
        widened to whole spans.

    Raises:
        InputError: If there is no such document, the range is empty or not within it, no
            span overlaps it, or the text was not kept.
    """
    own = document_spans(memory, document)
    check_characters(memory.documents[document], start, end)
    found = [
        i for i in own if memory.spans[i].char_start < end and memory.spans[i].char_end > start
    ]
    if start == end or not found:
        raise InputError(
            f"There is nothing to slice in {memory.documents[document].name}.",
            got=f"characters {start}:{end}",
            expected="a range that holds text",
        )
    return select(memory, range(found[0], found[-1] + 1))


def check_characters(document: MemoryDocument, start: int, end: int) -> None:
    """Refuse a range of characters that is reversed or not within a document.

    Args:
        document: The document.
        start: First character (code point) of the range.
        end: One past the last character.

    Raises:
        InputError: If it is.
    """
    if not 0 <= start <= end <= document.chars:
        raise InputError(
            f"There are no such characters in {document.name}.",
            got=f"{start}:{end}",
            expected=f"start:end within 0:{document.chars}",
        )


def delete_document(memory: Memory, document: int) -> Memory:
    """A memory without one of its documents.

    Args:
        memory: The memory.
        document: Index of the document, from 0; negative from the end.

    Raises:
        InputError: If there is no such document, or it is the only one.
    """
    gone = document_index(memory, document)
    kept = [i for i in range(len(memory.documents)) if i != gone]
    if not kept:
        raise InputError(
            "A memory cannot be empty.",
            got=f"{memory.documents[gone].name} is its only document",
            fix="Delete the memory file instead.",
        )
    return assemble(
        memory, whole_documents(memory, kept, at=0), [memory.documents[i] for i in kept]
    )
