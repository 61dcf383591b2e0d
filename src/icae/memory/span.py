"""A span: a slice of a document, and what the decoder gets in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from icae.config.parsing import check
from icae.config.spans import check_ratio
from icae.config.types import FloatArray, SpanKind, TokenIds
from icae.memory.fidelity import CERTAIN, TokenFidelity
from icae.memory.payload import Embeddings, Payload, Verbatim

MAX_REFINE_STEPS = 2**31 - 1
"""Most optimisation steps that a span can record."""

_NO_SLOTS = np.zeros((0, 0), dtype=np.float32)
_NO_IDS = np.zeros(0, dtype=np.int64)
_TOLERANCE = 1e-6
"""By how much the fidelity that a file states may differ from that of its tokens."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A slice of a document, compressed in one pass or kept verbatim.

    Attributes:
        token_start: First token in the document.
        token_end: One past the last token.
        char_start: First character (code point) in the document.
        char_end: One past the last character. A character that two spans share the bytes
            of may belong to both.
        payload: What the decoder gets in its place.
        ratio: Nominal compression ratio that was asked for, context tokens per slot; of a
            verbatim span, 1.
        fidelity: Share of the tokens that the decoder reproduces under teacher forcing
            (0..1), or None if it was not measured; of a verbatim span, 1.
        token_fidelity: The same of each token, or None.
        recall: Share of 16 tokens that the decoder finds when asked with the few before them,
            behind the whole memory that the span was made in, under teacher forcing (0..1);
            None if that was not measured, and of a verbatim span.
        refine_steps: Optimisation steps taken on the slots when they were made.
        refine_seconds: Wall time that these steps took, s.
        written_back: Whether the decoder, writing freely, gave every token back when the
            slots were made; None if that was not tried, and of a verbatim span.

    Raises:
        ConfigError: If a range is empty or reversed, a number is out of range, or the
            parts do not fit together.
    """

    token_start: int
    token_end: int
    char_start: int
    char_end: int
    payload: Payload
    ratio: float
    fidelity: float | None
    token_fidelity: TokenFidelity | None = field(default=None, repr=False)
    recall: float | None = None
    refine_steps: int = 0
    refine_seconds: float = 0.0
    written_back: bool | None = None

    def __post_init__(self) -> None:
        tokens, chars = (self.token_start, self.token_end), (self.char_start, self.char_end)
        check(0 <= tokens[0] < tokens[1], "A span has no tokens.", tokens, "0 <= start < end")
        check(0 <= chars[0] <= chars[1], "A span has reversed characters.", chars, "start <= end")
        check(self.positions >= 1, "A span has no payload.", self.positions, ">= 1 position")
        check_ratio(self.ratio)
        for name, share in (("fidelity", self.fidelity), ("recall", self.recall)):
            good = share is None or 0 <= share <= 1
            check(good, f"span.{name} is out of range.", share, "0..1, or None")
        refined = self.refine_steps, self.refine_seconds
        good = 0 <= refined[0] <= MAX_REFINE_STEPS and 0 <= refined[1] < math.inf
        wanted = f"0..{MAX_REFINE_STEPS} steps, seconds >= 0"
        check(good, "The refinement of a span is out of range.", refined, wanted)
        if self.kind == "tokens":
            held, wanted = self.positions, f"{self.tokens} tokens"
            good = held == self.tokens
            check(good, "A verbatim span does not hold all of its tokens.", held, wanted)
            said = (self.ratio, self.fidelity, *refined, self.written_back, self.recall)
            wanted = "ratio 1, fidelity 1, no refinement, not written back, no recall"
            good = said == (1.0, 1.0, 0, 0.0, None, None)
            check(good, "A verbatim span says that it was compressed.", said, wanted)
        if self.token_fidelity is not None:
            self._check_token_fidelity(self.token_fidelity)

    def _check_token_fidelity(self, measured: TokenFidelity) -> None:
        covered, wanted = len(measured), f"{self.tokens} tokens"
        good = covered == self.tokens
        check(good, "token_fidelity does not cover the tokens of a span.", covered, wanted)
        share = self.fidelity
        good = share is None or abs(share - measured.share) <= _TOLERANCE
        check(good, "A span has another fidelity than its tokens.", share, str(measured.share))
        lowest = int(measured.confidence.min())
        good = self.kind != "tokens" or lowest == CERTAIN
        wanted = str(CERTAIN)
        check(good, "A span is verbatim, but its tokens are not certain.", lowest, wanted)

    @classmethod
    def verbatim(
        cls, ids: TokenIds, *, token_start: int = 0, char_start: int = 0, char_end: int = 0
    ) -> Span:
        """A span of tokens [L] that are kept as they are."""
        return cls(
            token_start=token_start,
            token_end=token_start + len(ids),
            char_start=char_start,
            char_end=char_end,
            payload=Verbatim(ids=ids),
            ratio=1.0,
            fidelity=1.0,
            token_fidelity=TokenFidelity.of_verbatim(len(ids)),
        )

    def moved(self, *, tokens: int, chars: int) -> Span:
        """The same span, further on in its document (or further back, if negative)."""
        if tokens == chars == 0:
            return self
        return replace(
            self,
            token_start=self.token_start + tokens,
            token_end=self.token_end + tokens,
            char_start=self.char_start + chars,
            char_end=self.char_end + chars,
        )

    @property
    def kind(self) -> SpanKind:
        """Whether the decoder gets ``slots`` or their ``key-values``, or the ``tokens``."""
        return self.payload.kind

    @property
    def tokens(self) -> int:
        """Number of context tokens L."""
        return self.token_end - self.token_start

    @property
    def positions(self) -> int:
        """Decoder positions that it takes: its slots, or its tokens if it is verbatim."""
        return self.payload.positions

    @property
    def slots(self) -> int:
        """Number of memory slots K; 0 of a verbatim span."""
        return 0 if self.kind == "tokens" else self.positions

    @property
    def slots_KD(self) -> FloatArray:  # noqa: N802 (a shape, as everywhere)
        """Its slots, float32 [K, D]; [0, 0] if it has none that are input embeddings."""
        return self.payload.slots_KD if isinstance(self.payload, Embeddings) else _NO_SLOTS

    @property
    def verbatim_ids(self) -> TokenIds:
        """The token ids that the decoder gets, int64: all of them, or none."""
        return self.payload.ids if isinstance(self.payload, Verbatim) else _NO_IDS

    @property
    def is_exact(self) -> bool:
        """Whether its text is known to come back exactly: verbatim, or written back freely."""
        return self.kind == "tokens" or self.written_back is True
