"""Documents that change: more text at the end, other text inside, or less of it.

Nothing is encoded: whoever has new text makes a memory of it first. The slots, verbatim
tokens and measured fidelity of all other spans are copied as they are. The new text of
the document gets a new digest, so the old one has to be kept beside the slots.
"""

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


def extend(
    memory: Memory, document: int, addition: Memory, *, token_ids_sha256: str | None = None
) -> Memory:
    """A document with more text at its end.

    Args:
        memory: The memory.
        document: Index of the document, from 0; negative from the end.
        addition: A memory of one document: the additional text alone.
        token_ids_sha256: Digest of the token ids of the whole text, if known.

    Raises:
        InputError: As for `replace_spans`.
        IncompatibleMemoryError: As for `replace_spans`.
    """
    end = len(document_spans(memory, document))
    return replace_spans(memory, document, end, end, addition, token_ids_sha256=token_ids_sha256)


def drop_spans(
    memory: Memory,
    document: int,
    first: int,
    end: int,
    *,
    token_ids_sha256: str | None = None,
) -> Memory:
    """A document without a run of its spans and without their text.

    Args:
        memory: The memory.
        document: Index of the document, from 0; negative from the end.
        first: First span of the run, counted within the document.
        end: One past the last.
        token_ids_sha256: Digest of the token ids of the text that is left, if known.

    Raises:
        InputError: As for `replace_spans`, or if no span would be left.
    """
    return _splice(memory, document, (first, end), (), token_ids_sha256)


def replace_spans(
    memory: Memory,
    document: int,
    first: int,
    end: int,
    replacement: Memory,
    *,
    token_ids_sha256: str | None = None,
) -> Memory:
    """A document with other text in place of a run of its spans.

    Args:
        memory: The memory.
        document: Index of the document, from 0; negative from the end.
        first: First span of the run, counted within the document.
        end: One past the last; `first` to insert before that span.
        replacement: A memory of one document: the new text alone.
        token_ids_sha256: Digest of the token ids of the whole new text, if known.

    Raises:
        InputError: If there is no such document or run, the text of the document or of
            the replacement was not kept, or the replacement has several documents.
        IncompatibleMemoryError: If the two memories were made by different models.
    """
    require_match(memory, replacement)
    if len(replacement.documents) != 1:
        raise InputError(
            "A document cannot be put together from several.",
            got=f"a replacement of {len(replacement.documents)} documents",
            expected="a memory of one document",
        )
    return _splice(memory, document, (first, end), (replacement,), token_ids_sha256)


def _splice(
    memory: Memory,
    document: int,
    run: tuple[int, int],
    replacements: Sequence[Memory],
    token_ids_sha256: str | None,
) -> Memory:
    """Put memories of one document each in place of a run of spans of a document."""
    document = document_index(memory, document)
    own = document_spans(memory, document)
    first, end = _run_within(memory, own, run)
    old, source = memory.documents[document], source_of(memory.documents[document])
    cut_start, cut_end = cuts(memory, document, *run)
    text = source[:cut_start]
    tokens = memory.spans[first - 1].token_end if first > own.start else 0
    parts: list[SpanRun] = []
    if first > own.start:
        parts.append(SpanRun(memory=memory, first=own.start, end=first, document=document))
    for replacement in replacements:
        parts.append(_all_spans(replacement, document, tokens, len(text)))
        text += source_of(replacement.documents[0])
        tokens += replacement.tokens
    if end < own.stop:
        left = old.tokens - memory.spans[end].token_start
        parts.append(
            SpanRun(
                memory=memory,
                first=end,
                end=own.stop,
                document=document,
                token_shift=tokens - memory.spans[end].token_start,
                char_shift=len(text) - cut_end,
            )
        )
        tokens += left
    if not parts:
        raise InputError(
            f"No span of {old.name} would be left.", fix="Delete the document as a whole."
        )
    documents = list(memory.documents)
    changed = rewritten(old, text + source[cut_end:], tokens)
    documents[document] = replace(changed, token_ids_sha256=token_ids_sha256)
    others = whole_documents(memory, range(len(documents)), at=0)
    return assemble(memory, [*others[:document], *parts, *others[document + 1 :]], documents)


def _all_spans(memory: Memory, document: int, token_shift: int, char_shift: int) -> SpanRun:
    """All spans of a memory of one document, as part of another document."""
    return SpanRun(
        memory=memory,
        first=0,
        end=len(memory.spans),
        document=document,
        token_shift=token_shift,
        char_shift=char_shift,
    )


def _run_within(memory: Memory, own: range, run: tuple[int, int]) -> tuple[int, int]:
    """A run of spans counted within a document, as indices of the memory."""
    first, end = run
    if not 0 <= first <= end <= len(own):
        raise InputError(
            f"{memory.documents[memory.spans[own.start].document].name} has no such spans.",
            got=f"spans {first}:{end}",
            expected=f"first:end within 0:{len(own)}",
        )
    return own.start + first, own.start + end


def cuts(memory: Memory, document: int, first: int, end: int) -> tuple[int, int]:
    """Where the text before a run of spans ends, and where the text after it starts.

    A character that the run shares with a span beside it is counted to that span; text
    that no span covers goes with the run, if there is one.

    Args:
        memory: The memory.
        document: Index of the document, from 0; negative from the end.
        first: First span of the run, counted within the document.
        end: One past the last.

    Returns:
        Two characters of the document.

    Raises:
        InputError: If there is no such document or run.
    """
    own = document_spans(memory, document)
    first, end = _run_within(memory, own, (first, end))
    spans = memory.spans
    chars = memory.documents[spans[own.start].document].chars
    start, stop = 0, chars
    if first > own.start:
        start = spans[first - 1].char_end if first < own.stop else chars
    if end < own.stop:
        stop = spans[end].char_start if end > own.start else 0
    return start, min(start, stop) if first == end else stop
