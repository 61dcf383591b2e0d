"""The parts of a memory that describe it: documents and spans.

Both are plain values; the arithmetic over several of them is in the functions below, so
that a memory and the header of its file share it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from icae.memory.checks import check, check_text, is_sha256
from icae.spans import SpanPlan, check_ratio
from icae.types import TokenIds


def hash_token_ids(ids: TokenIds) -> str:
    """SHA-256 of token ids as little-endian uint32, lower-case hex."""
    return hashlib.sha256(np.asarray(ids, dtype="<u4").tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class MemoryDocument:
    """One compressed document.

    Attributes:
        name: What the user calls it, for example its file name.
        sha256: Digest of its text in UTF-8, lower-case hex.
        chars: Length of the text in Unicode code points (``len(text)``).
        tokens: Length of the text in tokens.
        source: The text itself, or None if it is not kept.
        token_ids_sha256: Digest of its token ids, lower-case hex.

    Raises:
        ConfigError: If a field is out of range, or `source` is not the text that
            `sha256` and `chars` describe.
    """

    name: str
    sha256: str
    chars: int
    tokens: int
    source: str | None = field(repr=False)
    token_ids_sha256: str

    def __post_init__(self) -> None:
        check_text("document.name", self.name)
        check(
            is_sha256(self.sha256), "document.sha256 is not a digest.", self.sha256, "64 hex digits"
        )
        check(
            is_sha256(self.token_ids_sha256),
            "document.token_ids_sha256 is not a digest.",
            self.token_ids_sha256,
            "64 hex digits",
        )
        check(self.chars >= 0, "document.chars is out of range.", self.chars, ">= 0")
        check(self.tokens >= 1, "document.tokens is out of range.", self.tokens, ">= 1")
        if self.source is None:
            return
        check_text(f"The source of {self.name!r}", self.source)
        digest = hashlib.sha256(self.source.encode("utf-8")).hexdigest()
        check(
            len(self.source) == self.chars,
            f"The source of {self.name!r} has another length.",
            f"{len(self.source)} characters",
            f"{self.chars} characters",
        )
        check(
            digest == self.sha256,
            f"The source of {self.name!r} is another text.",
            digest,
            f"a text with SHA-256 {self.sha256}",
        )


@dataclass(frozen=True, kw_only=True)
class MemorySpan:
    """A slice of a document that was compressed in one pass.

    Attributes:
        document: Index of its document in the memory.
        token_start: First token in that document.
        token_end: One past the last token.
        char_start: First character (code point) in that document.
        char_end: One past the last character. A character that two spans share the
            bytes of may belong to both.
        slot_start: First row in the slots of the memory.
        slot_end: One past the last row.
        ratio: Nominal compression ratio that was asked for, context tokens per slot.
        fidelity: Share of the tokens that the decoder reproduces from the slots under
            teacher forcing (0..1), or None if it was not measured.

    Raises:
        ConfigError: If a range is empty or reversed, or a number out of range.
    """

    document: int
    token_start: int
    token_end: int
    char_start: int
    char_end: int
    slot_start: int
    slot_end: int
    ratio: float
    fidelity: float | None

    def __post_init__(self) -> None:
        check(self.document >= 0, "span.document is out of range.", self.document, ">= 0")
        tokens, slots = (self.token_start, self.token_end), (self.slot_start, self.slot_end)
        chars = (self.char_start, self.char_end)
        check(0 <= tokens[0] < tokens[1], "A span has no tokens.", tokens, "0 <= start < end")
        check(0 <= slots[0] < slots[1], "A span has no slots.", slots, "0 <= start < end")
        check(0 <= chars[0] <= chars[1], "A span has reversed characters.", chars, "start <= end")
        check_ratio(self.ratio)
        check(
            self.fidelity is None or (math.isfinite(self.fidelity) and 0 <= self.fidelity <= 1),
            "span.fidelity is out of range.",
            self.fidelity,
            "0..1, or None",
        )

    @property
    def tokens(self) -> int:
        """Number of context tokens L."""
        return self.token_end - self.token_start

    @property
    def slots(self) -> int:
        """Number of memory slots K."""
        return self.slot_end - self.slot_start


def token_count(spans: Sequence[MemorySpan]) -> int:
    """Context tokens of all spans together."""
    return sum(span.tokens for span in spans)


def mean_fidelity(spans: Sequence[MemorySpan]) -> float | None:
    """Fidelity over all tokens of the spans.

    Args:
        spans: At least one span.

    Returns:
        The mean weighted by tokens (0..1), or None if a span was not measured.
    """
    total = 0.0
    for span in spans:
        if span.fidelity is None:
            return None
        total += span.fidelity * span.tokens
    return total / token_count(spans)


def check_tiling(
    spans: Sequence[MemorySpan], documents: Sequence[MemoryDocument], slot_count: int
) -> None:
    """Check that spans cover slots and documents exactly once, in order.

    Args:
        spans: Spans of a memory.
        documents: Its documents.
        slot_count: Its number of slots K.

    Raises:
        ConfigError: If the spans leave a gap or overlap in slots or tokens, go back in a
            document, leave one out, or name one that does not exist.
    """
    check(bool(spans), "A memory has no spans.", 0, "at least one span")
    slot = 0
    at: list[int] = [0] * len(documents)
    previous: MemorySpan | None = None
    for index, span in enumerate(spans):
        where = f"Span {index}"
        check(
            span.document < len(documents),
            f"{where} names a document that does not exist.",
            span.document,
            f"0..{len(documents) - 1}",
        )
        check(
            span.slot_start == slot,
            f"{where} does not start at the slot where the one before it ends.",
            span.slot_start,
            str(slot),
        )
        check(
            span.token_start == at[span.document],
            f"{where} does not start at the token where the one before it ends.",
            span.token_start,
            str(at[span.document]),
        )
        _check_order(where, span, previous, documents[span.document])
        slot, at[span.document], previous = span.slot_end, span.token_end, span
    check(slot == slot_count, "The spans do not cover the slots.", slot, f"{slot_count} slots")
    for document, end in zip(documents, at, strict=True):
        check(
            end == document.tokens,
            f"The spans do not cover the document {document.name!r}.",
            f"{end} tokens",
            f"{document.tokens} tokens",
        )


def _check_order(
    where: str, span: MemorySpan, previous: MemorySpan | None, document: MemoryDocument
) -> None:
    check(
        span.char_end <= document.chars,
        f"{where} ends after its document.",
        span.char_end,
        f"<= {document.chars} characters",
    )
    if previous is None:
        return
    check(
        span.document >= previous.document,
        f"{where} goes back to an earlier document.",
        span.document,
        f">= {previous.document}",
    )
    if span.document == previous.document:
        check(
            span.char_start >= previous.char_start and span.char_end >= previous.char_end,
            f"{where} goes back in its document.",
            (span.char_start, span.char_end),
            f"not before ({previous.char_start}, {previous.char_end})",
        )


def spans_of_document(
    plans: Sequence[SpanPlan],
    offsets: Sequence[int],
    fidelity: Sequence[float | None],
    ratio: float,
) -> tuple[MemorySpan, ...]:
    """The spans of one document that is a memory by itself.

    A span's characters end where the next one's begin, so that spans tile the text.

    Args:
        plans: Spans of the document's tokens, in order.
        offsets: Character at which each token starts, then the length of the text.
        fidelity: Measured fidelity of each span, or None.
        ratio: Nominal compression ratio.
    """
    spans: list[MemorySpan] = []
    row = 0
    for plan, measured in zip(plans, fidelity, strict=True):
        spans.append(
            MemorySpan(
                document=0,
                token_start=plan.token_start,
                token_end=plan.token_end,
                char_start=offsets[plan.token_start] if spans else 0,
                char_end=offsets[plan.token_end],
                slot_start=row,
                slot_end=row + plan.slots,
                ratio=ratio,
                fidelity=measured,
            )
        )
        row += plan.slots
    return tuple(spans)
