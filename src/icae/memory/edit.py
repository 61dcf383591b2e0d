"""Edits of documents: list operations on their spans. Nothing is encoded.

The spans that stay are copied as they are, and moved to where they stand then. The new
text of a document gets a new digest, so the old one has to be kept beside the spans.
"""

from __future__ import annotations

from icae.errors import InputError
from icae.memory.document import MemoryDocument


def part(document: MemoryDocument, first: int, end: int) -> MemoryDocument:
    """Its spans ``first..end`` as a document of their own; if that is all, as it is.

    It is named for its characters, as in ``report.txt[1200:2400]``. An InputError if the text of a
    document that is cut was not kept.
    """
    if (first, end) == (0, len(document.spans)):
        return document
    spans = document.spans[first:end]
    chars = spans[0].char_start, spans[-1].char_end
    return MemoryDocument.of_text(
        document.require_source()[slice(*chars)],
        [span.moved(tokens=-spans[0].token_start, chars=-chars[0]) for span in spans],
        name=f"{document.name}[{chars[0]}:{chars[1]}]",
        token_ids_sha256=None,
    )


def overlapping(document: MemoryDocument, start: int, end: int) -> tuple[int, int]:
    """The first span that overlaps the characters ``start..end``, and one past the last.

    An InputError if the range is not within the document, empty, or no span overlaps it.
    """
    document.require_characters(start, end)
    found = [
        i
        for i, span in enumerate(document.spans)
        if span.char_start < end and span.char_end > start
    ]
    if start == end or not found:
        raise InputError(
            f"There is nothing to slice in {document.name}.",
            got=f"characters {start}:{end}",
            expected="a range that holds text",
        )
    return found[0], found[-1] + 1


def splice(
    document: MemoryDocument,
    first: int,
    end: int,
    replacement: MemoryDocument | None,
    *,
    token_ids_sha256: str | None = None,
) -> MemoryDocument:
    """A document with other text, or none, in place of its spans ``first..end``.

    An empty run inserts before `first`. The digest is that of the ids of the whole new text. An
    InputError if there is no such run, a text was not kept, or no span would be left.
    """
    source = document.require_source()
    cut_start, cut_end = cuts(document, first, end)
    spans = list(document.spans[:first])
    text = source[:cut_start]
    if replacement is not None:
        tokens = spans[-1].token_end if spans else 0
        spans += [span.moved(tokens=tokens, chars=cut_start) for span in replacement.spans]
        text += replacement.require_source()
    if not spans and end == len(document.spans):
        raise InputError(
            f"No span of {document.name} would be left.", fix="Delete the document as a whole."
        )
    tokens = spans[-1].token_end if spans else 0
    spans += [
        span.moved(tokens=tokens - document.spans[end].token_start, chars=len(text) - cut_end)
        for span in document.spans[end:]
    ]
    return MemoryDocument.of_text(
        text + source[cut_end:], spans, name=document.name, token_ids_sha256=token_ids_sha256
    )


def cuts(document: MemoryDocument, first: int, end: int) -> tuple[int, int]:
    """Where the text before a run of spans ends, and where the text after it starts.

    A character that the run shares with a span beside it is counted to that span; text that no span
    covers goes with the run, if there is one. An InputError if there is no such run ``first..end``.
    """
    spans = document.spans
    if not 0 <= first <= end <= len(spans):
        raise InputError(
            f"{document.name} has no such spans.",
            got=f"spans {first}:{end}",
            expected=f"first:end within 0:{len(spans)}",
        )
    start, stop = 0, document.chars
    if first:
        start = spans[first - 1].char_end if first < len(spans) else document.chars
    if end < len(spans):
        stop = spans[end].char_start if end else 0
    return start, min(start, stop) if first == end else stop
