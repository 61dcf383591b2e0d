"""Living memories: text added, replaced or deleted, with only the changed spans encoded again.

The new text of the document is tokenized as a whole. Spans whose tokens and characters
are the same in it stay as they are, to the last bit; the text between them is compressed
again. So the memory of an edited document has the tokens that the edited text has.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from icae.compression.compressor import Compressor, TokenizedText
from icae.config.spans import DEFAULT_RATIO
from icae.config.types import TokenIds
from icae.decode.prefix import common_length
from icae.errors import InputError
from icae.memory import Memory, MemoryDocument, Span, hash_token_ids
from icae.memory.edit import cuts
from icae.model.prompts import tokenize


class _Kept(NamedTuple):
    """How many spans at the start and at the end of a document stay as they are."""

    front: int
    back: int


def append(
    compressor: Compressor,
    memory: Memory,
    text: str,
    *,
    document: int = -1,
    ratio: float | None = None,
) -> Memory:
    """Add text to the end of a document, by default the last; as `replace`.

    Only the new text is encoded, together with the last span if that is one of slots and
    shorter than a whole span, or if the new text changes how its end is tokenized.

    Raises:
        InputError: If there is nothing to add, and as for `replace`.
    """
    if not text:
        raise InputError("There is nothing to append.", got="no text", expected="text")
    end = memory.documents[memory.document_index(document)].chars
    return replace(compressor, memory, document, slice(end, end), text, ratio)


def replace(
    compressor: Compressor,
    memory: Memory,
    document: int,
    chars: slice,
    text: str,
    ratio: float | None,
) -> Memory:
    """Put other text, or none, in place of some; only spans that it touches are encoded again.

    Where all of these are verbatim, the new text is kept verbatim, too.

    Args:
        compressor: Encodes the new spans.
        memory: The memory.
        document: Index of the document, from 0; negative from the end.
        chars: Characters (code points) to replace; none to insert.
        text: The new text; empty to delete.
        ratio: Context tokens per slot, or None for that of the nearest span of slots.

    Raises:
        InputError: If there is no such document or range, the text was not kept, or no
            text would be left.
    """
    compressor.require_alone("Changing a part of a text")
    edited = memory.documents[memory.document_index(document)]
    edited.require_characters(chars.start, chars.stop)
    source = edited.require_source()
    changed = source[: chars.start] + text + source[chars.stop :]
    if not changed.strip():
        raise InputError(
            f"No text of {edited.name} would be left.", fix="Delete the document as a whole."
        )
    kept = _outside(edited.spans, chars)
    made, kept, digest = _anew(compressor, edited, kept, changed, ratio)
    first, end = kept.front, len(edited.spans) - kept.back
    return memory.replace_spans(document, first, end, made, token_ids_sha256=digest)


def _anew(
    compressor: Compressor,
    document: MemoryDocument,
    kept: _Kept,
    text: str,
    ratio: float | None,
) -> tuple[Memory | None, _Kept, str | None]:
    """What the changed text between spans becomes, the spans that stay, and the new digest."""
    spans = document.spans
    touched = spans[kept.front : len(spans) - kept.back]
    kept = _with_open_end(spans, kept, compressor.config.span_length)
    old_ids = _known_ids(compressor, document)
    whole, digest = None, None
    if old_ids is not None:
        whole = compressor.tokenize(text)
        digest = hash_token_ids(whole.ids)
        kept = _same_tokens(spans, kept, old_ids, whole.ids)
    middle, kept = _middle(compressor, document, kept, text, whole)
    if middle is None:
        return None, kept, digest
    if touched and all(span.kind == "tokens" for span in touched):
        return compressor.verbatim(middle, name=document.name), kept, digest
    near = _near_ratio(spans, kept) if ratio is None else ratio
    return compressor.compress(middle, ratio=near, name=document.name), kept, digest


def _outside(spans: Sequence[Span], chars: slice) -> _Kept:
    """The spans that end before some characters and those that start after them."""
    front = sum(1 for _ in itertools.takewhile(lambda s: s.char_end <= chars.start, spans))
    after = itertools.takewhile(lambda s: s.char_start >= chars.stop, reversed(spans[front:]))
    return _Kept(front, sum(1 for _ in after))


def _with_open_end(spans: Sequence[Span], kept: _Kept, span_length: int) -> _Kept:
    """Take the last span along, too, if text comes after it and it has room for more."""
    last = spans[-1]
    if kept.front == len(spans) and last.kind != "tokens" and last.tokens < span_length:
        return _Kept(kept.front - 1, 0)
    return kept


def _known_ids(compressor: Compressor, document: MemoryDocument) -> TokenIds | None:
    """The token ids of a document, if its text gives those that it was compressed from."""
    if document.token_ids_sha256 is None:
        return None
    ids = tokenize(compressor.tokenizer, document.require_source())
    return ids if hash_token_ids(ids) == document.token_ids_sha256 else None


def _same_tokens(spans: Sequence[Span], kept: _Kept, old_ids: TokenIds, new_ids: TokenIds) -> _Kept:
    """Of the spans outside an edit, those whose tokens the new text has, too."""
    front, back = kept.front, kept.back
    ahead = common_length(old_ids, new_ids)
    behind = common_length(old_ids[::-1], new_ids[::-1])
    while front and spans[front - 1].token_end > ahead:
        front -= 1
    start = spans[front - 1].token_end if front else 0
    behind = min(behind, len(new_ids) - start)
    while back and len(old_ids) - spans[-back].token_start > behind:
        back -= 1
    return _Kept(front, back)


def _middle(
    compressor: Compressor,
    document: MemoryDocument,
    kept: _Kept,
    text: str,
    whole: TokenizedText | None,
) -> tuple[TokenizedText | None, _Kept]:
    """The new text between the spans that stay, or None if there is none.

    Its tokens are those that it has in the whole text, where these are known. Else it is
    tokenized by itself, widened by a span where it would be blank.
    """
    spans = document.spans
    while True:
        cut_start, cut_end = cuts(document, kept.front, len(spans) - kept.back)
        char_end = len(text) - (document.chars - cut_end)
        if whole is not None:
            first = spans[kept.front - 1].token_end if kept.front else 0
            behind = spans[-1].token_end - spans[-kept.back].token_start if kept.back else 0
            end = len(whole.ids) - behind
            part = whole.part(first, end, char_start=cut_start, char_end=char_end)
            return (part if first < end else None), kept
        if text[cut_start:char_end].strip():
            return compressor.tokenize(text[cut_start:char_end]), kept
        if cut_start >= char_end:
            return None, kept
        kept = _Kept(max(kept.front - 1, 0), kept.back if kept.front else kept.back - 1)


def _near_ratio(spans: Sequence[Span], kept: _Kept) -> float:
    """The ratio of the span of slots that is nearest to an edit."""
    nearest = (
        *spans[kept.front : len(spans) - kept.back],
        *reversed(spans[: kept.front]),
        *spans[len(spans) - kept.back :],
    )
    return next((span.ratio for span in nearest if span.kind != "tokens"), DEFAULT_RATIO)
