"""Living memories: text added, replaced or deleted, with only the changed spans encoded again.

The new text of the document is tokenized as a whole. Spans whose tokens and characters
are the same in it stay as they are, to the last bit; the text between them is compressed
again. So the memory of an edited document has the tokens that the edited text has.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to be encoded for a change of a document, and the spans in whose place it comes.

    Attributes:
        memory: What is changed.
        document: Index of the document.
        first: The first of its spans that goes.
        end: One past the last.
        digest: Of the token ids of the changed document, or None where they are not known.
        text: What becomes spans, or None where some only go.
        ratio: At which it does; None: it is kept verbatim.
    """

    memory: Memory
    document: int
    first: int
    end: int
    digest: str | None
    text: TokenizedText | None
    ratio: float | None

    @property
    def name(self) -> str:
        """Of the document."""
        return self.memory.documents[self.document].name

    @property
    def to_encode(self) -> tuple[TokenizedText, float] | None:
        """The text that becomes slots, and its ratio; None where none does."""
        return None if self.text is None or self.ratio is None else (self.text, self.ratio)

    def made(self, compressor: Compressor, encoded: Memory | None) -> Memory:
        """The changed memory, by the memory of what was to encode."""
        of_text = encoded
        if encoded is None and self.text is not None:
            of_text = compressor.verbatim(self.text, name=self.name)
        return self.memory.replace_spans(
            self.document, self.first, self.end, of_text, token_ids_sha256=self.digest
        )


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
    found = change(compressor, memory, document, chars, text, ratio)
    encoded = None
    if found.to_encode is not None:
        new, own_ratio = found.to_encode
        encoded = compressor.compress(new, ratio=own_ratio, name=found.name)
    return found.made(compressor, encoded)


def change(
    compressor: Compressor,
    memory: Memory,
    document: int,
    chars: slice,
    text: str,
    ratio: float | None,
) -> Change:
    """What there is to be encoded so that a text is changed; see `replace`. Runs no model."""
    compressor.require_alone("Changing a part of a text")
    edited = memory.documents[memory.document_index(document)]
    edited.require_characters(chars.start, chars.stop)
    source = edited.require_source()
    changed = source[: chars.start] + text + source[chars.stop :]
    if not changed.strip():
        raise InputError(
            f"No text of {edited.name} would be left.", fix="Delete the document as a whole."
        )
    spans, kept = edited.spans, _outside(edited.spans, chars)
    touched = spans[kept.front : len(spans) - kept.back]
    kept = _with_open_end(spans, kept, compressor.config.span_length)
    old_ids = _known_ids(compressor, edited)
    whole, digest = None, None
    if old_ids is not None:
        whole = compressor.tokenize(changed)
        digest = hash_token_ids(whole.ids)
        kept = _same_tokens(spans, kept, old_ids, whole.ids)
    middle, kept = _middle(compressor, edited, kept, changed, whole)
    verbatim = touched and all(span.kind == "tokens" for span in touched)
    return Change(
        memory=memory,
        document=document,
        first=kept.front,
        end=len(spans) - kept.back,
        digest=digest,
        text=middle,
        ratio=None if verbatim else _near_ratio(spans, kept) if ratio is None else ratio,
    )


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
