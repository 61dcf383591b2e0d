"""A document: its spans, and the text that they stand for."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from icae.config.parsing import check
from icae.config.types import TokenIds
from icae.errors import InputError
from icae.memory.checks import check_sha256, check_text
from icae.memory.span import Span


def hash_token_ids(ids: TokenIds) -> str:
    """SHA-256 of token ids as little-endian uint32, lower-case hex."""
    return hashlib.sha256(np.asarray(ids, dtype="<u4").tobytes()).hexdigest()


def hash_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, lower-case hex."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class MemoryDocument:
    """One compressed document.

    Attributes:
        name: What the user calls it, for example its file name.
        sha256: Digest of its text in UTF-8, lower-case hex.
        chars: Length of the text in Unicode code points (``len(text)``).
        source: The text itself, or None if it is not kept.
        token_ids_sha256: Digest of its token ids, lower-case hex, or None where they are
            not known as a whole: a slice or an edit changes the text, and only a
            tokenizer could tell the ids of the new one.
        spans: What its tokens became, in order: they cover the tokens exactly.

    Raises:
        ConfigError: If a field is out of range, `source` is not the text that `sha256`
            and `chars` describe, or the spans leave a gap, overlap or go back.
    """

    name: str
    sha256: str
    chars: int
    source: str | None = field(repr=False)
    token_ids_sha256: str | None
    spans: tuple[Span, ...]

    def __post_init__(self) -> None:
        check_text("document.name", self.name)
        check_sha256("document.sha256", self.sha256)
        if self.token_ids_sha256 is not None:
            check_sha256("document.token_ids_sha256", self.token_ids_sha256)
        check(self.chars >= 0, "document.chars is out of range.", self.chars, ">= 0")
        if self.source is not None:
            what = f"The source of {self.name!r}"
            check_text(what, self.source)
            chars, wanted = f"{len(self.source)} characters", f"{self.chars} characters"
            check(chars == wanted, f"{what} has another length.", chars, wanted)
            digest, wanted = hash_text(self.source), f"a text with SHA-256 {self.sha256}"
            check(digest == self.sha256, f"{what} is another text.", digest, wanted)
        self._check_spans()

    def _check_spans(self) -> None:
        check(bool(self.spans), f"{self.name!r} has no spans.", 0, "at least one span")
        at = self.spans[0].token_start
        check(at == 0, f"The first span of {self.name!r} does not start it.", at, "token 0")
        for before, span in itertools.pairwise(self.spans):
            check(
                span.token_start == before.token_end,
                f"A span of {self.name!r} does not start where the one before it ends.",
                f"token {span.token_start}",
                f"token {before.token_end}",
            )
            check(
                span.char_start >= before.char_start and span.char_end >= before.char_end,
                f"A span of {self.name!r} goes back in it.",
                (span.char_start, span.char_end),
                f"not before ({before.char_start}, {before.char_end})",
            )
        end, wanted = self.spans[-1].char_end, f"<= {self.chars} characters"
        check(end <= self.chars, f"A span of {self.name!r} ends after it.", end, wanted)

    @classmethod
    def of_text(
        cls, text: str, spans: Sequence[Span], *, name: str, token_ids_sha256: str | None
    ) -> MemoryDocument:
        """A document that keeps its text."""
        return cls(
            name=name,
            sha256=hash_text(text),
            chars=len(text),
            source=text,
            token_ids_sha256=token_ids_sha256,
            spans=tuple(spans),
        )

    @property
    def tokens(self) -> int:
        """Its length in tokens."""
        return self.spans[-1].token_end

    def require_source(self) -> str:
        """Its text; an InputError if it was not kept."""
        if self.source is None:
            raise InputError(
                "The text of a document can only be changed or cut where it was kept.",
                got=f"no source text for {self.name}",
                expected="a memory with its source",
                fix="Compress the document again and keep its text.",
            )
        return self.source

    def require_characters(self, start: int, end: int) -> None:
        """An InputError if the characters ``start..end`` are reversed or not within it."""
        if not 0 <= start <= end <= self.chars:
            raise InputError(
                f"There are no such characters in {self.name}.",
                got=f"{start}:{end}",
                expected=f"start:end within 0:{self.chars}",
            )

    def without_source(self) -> MemoryDocument:
        """The same document without its text."""
        return replace(self, source=None)

    def without_token_fidelity(self) -> MemoryDocument:
        """The same document, its slots not measured token by token."""
        spans = tuple(
            replace(span, token_fidelity=None) if span.kind != "tokens" else span
            for span in self.spans
        )
        return replace(self, spans=spans)
