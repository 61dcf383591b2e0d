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
from numpy.typing import NDArray

from icae.config.spans import check_ratio
from icae.config.types import SPAN_KINDS, SpanKind, TokenIds
from icae.memory.checks import check, check_text, is_sha256

MAX_REFINE_STEPS = 2**31 - 1
"""Most optimisation steps that a span can record."""


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
        token_ids_sha256: Digest of its token ids, lower-case hex, or None where they are
            not known as a whole: a slice or an edit changes the text, and only a
            tokenizer could tell the ids of the new one.

    Raises:
        ConfigError: If a field is out of range, or `source` is not the text that
            `sha256` and `chars` describe.
    """

    name: str
    sha256: str
    chars: int
    tokens: int
    source: str | None = field(repr=False)
    token_ids_sha256: str | None

    def __post_init__(self) -> None:
        check_text("document.name", self.name)
        check(
            is_sha256(self.sha256), "document.sha256 is not a digest.", self.sha256, "64 hex digits"
        )
        check(
            self.token_ids_sha256 is None or is_sha256(self.token_ids_sha256),
            "document.token_ids_sha256 is not a digest.",
            self.token_ids_sha256,
            "64 hex digits, or None",
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
    """A slice of a document that was compressed in one pass, or kept verbatim.

    Attributes:
        document: Index of its document in the memory.
        token_start: First token in that document.
        token_end: One past the last token.
        char_start: First character (code point) in that document.
        char_end: One past the last character. A character that two spans share the
            bytes of may belong to both.
        slot_start: First row in the slots of the memory.
        slot_end: One past the last row; of a verbatim span, `slot_start`.
        ratio: Nominal compression ratio that was asked for, context tokens per slot; of a
            verbatim span, 1.
        fidelity: Share of the tokens that the decoder reproduces from the slots under
            teacher forcing (0..1), or None if it was not measured; of a verbatim span, 1:
            its text is there as it is.
        kind: Whether the decoder gets ``slots`` in place of the span, or its ``tokens``.
        verbatim_start: First row in the verbatim token ids of the memory.
        verbatim_end: One past the last row; of a span of slots, `verbatim_start`.
        refine_steps: Optimisation steps taken on the slots when they were made.
        refine_seconds: Wall time that these steps took, s.
        written_back: Whether the decoder, writing freely, gave every token back when the
            slots were made; None if that was not tried, and of a verbatim span.

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
    kind: SpanKind = "slots"
    verbatim_start: int = 0
    verbatim_end: int = 0
    refine_steps: int = 0
    refine_seconds: float = 0.0
    written_back: bool | None = None

    def __post_init__(self) -> None:
        check(self.document >= 0, "span.document is out of range.", self.document, ">= 0")
        tokens, chars = (self.token_start, self.token_end), (self.char_start, self.char_end)
        check(0 <= tokens[0] < tokens[1], "A span has no tokens.", tokens, "0 <= start < end")
        check(0 <= chars[0] <= chars[1], "A span has reversed characters.", chars, "start <= end")
        check_ratio(self.ratio)
        check(
            self.fidelity is None or (math.isfinite(self.fidelity) and 0 <= self.fidelity <= 1),
            "span.fidelity is out of range.",
            self.fidelity,
            "0..1, or None",
        )
        refined = (self.refine_steps, self.refine_seconds)
        check(
            0 <= self.refine_steps <= MAX_REFINE_STEPS
            and self.refine_seconds >= 0
            and math.isfinite(self.refine_seconds),
            "The refinement of a span is out of range.",
            refined,
            f"0..{MAX_REFINE_STEPS} steps, seconds >= 0",
        )
        check(self.kind in SPAN_KINDS, "span.kind is not known.", self.kind, ", ".join(SPAN_KINDS))
        slots = (self.slot_start, self.slot_end)
        verbatim = (self.verbatim_start, self.verbatim_end)
        if self.kind == "slots":
            check(0 <= slots[0] < slots[1], "A span has no slots.", slots, "0 <= start < end")
            _check_empty("A span of slots has verbatim tokens.", verbatim)
        else:
            _check_empty("A verbatim span has slots.", slots)
            self._check_verbatim(verbatim)

    def _check_verbatim(self, rows: tuple[int, int]) -> None:
        check(
            rows[0] >= 0 and rows[1] - rows[0] == self.tokens,
            "A verbatim span does not hold all of its tokens.",
            rows,
            f"{self.tokens} rows",
        )
        refined = (self.refine_steps, self.refine_seconds, self.written_back)
        said = (self.ratio, self.fidelity, *refined)
        check(
            said == (1.0, 1.0, 0, 0.0, None),
            "A verbatim span says that it was compressed.",
            said,
            "ratio 1, fidelity 1, no refinement, not written back",
        )

    @property
    def tokens(self) -> int:
        """Number of context tokens L."""
        return self.token_end - self.token_start

    @property
    def slots(self) -> int:
        """Number of memory slots K; 0 of a verbatim span."""
        return self.slot_end - self.slot_start

    @property
    def is_exact(self) -> bool:
        """Whether its text is known to come back exactly: verbatim, or written back freely."""
        return self.kind == "tokens" or self.written_back is True

    @property
    def positions(self) -> int:
        """Decoder positions that it takes: its slots, or its tokens if it is verbatim."""
        return self.slots + self.verbatim_end - self.verbatim_start


def _check_empty(message: str, rows: tuple[int, int]) -> None:
    check(0 <= rows[0] == rows[1], message, rows, "0 <= start == end")


def token_count(spans: Sequence[MemorySpan]) -> int:
    """Context tokens of all spans together."""
    return sum(span.tokens for span in spans)


def token_offsets(spans: Sequence[MemorySpan]) -> NDArray[np.int64]:
    """Where each span's tokens start among the tokens of all spans.

    Returns:
        [S + 1]: the start of each span, then the number of tokens.
    """
    lengths = [span.tokens for span in spans]
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


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
    spans: Sequence[MemorySpan],
    documents: Sequence[MemoryDocument],
    *,
    slot_count: int,
    verbatim_count: int,
) -> None:
    """Check that spans cover slots, verbatim tokens and documents exactly once, in order.

    Args:
        spans: Spans of a memory.
        documents: Its documents.
        slot_count: Its number of slots K.
        verbatim_count: Its number of verbatim tokens N.

    Raises:
        ConfigError: If the spans leave a gap or overlap in slots, verbatim tokens or
            tokens, go back in a document, leave one out, or name one that does not exist.
    """
    check(bool(spans), "A memory has no spans.", 0, "at least one span")
    slot, row = 0, 0
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
            span.verbatim_start == row,
            f"{where} does not start at the verbatim token where the one before it ends.",
            span.verbatim_start,
            str(row),
        )
        check(
            span.token_start == at[span.document],
            f"{where} does not start at the token where the one before it ends.",
            span.token_start,
            str(at[span.document]),
        )
        _check_order(where, span, previous, documents[span.document])
        slot, row, previous = span.slot_end, span.verbatim_end, span
        at[span.document] = span.token_end
    check(slot == slot_count, "The spans do not cover the slots.", slot, f"{slot_count} slots")
    check(
        row == verbatim_count,
        "The spans do not cover the verbatim tokens.",
        row,
        f"{verbatim_count} tokens",
    )
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
