"""From text to memory: tokenize, cut into spans, encode each, measure what is held.

Shapes: L context tokens of a span, K slots, D hidden.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icae.config.spans import plan_spans, slot_count
from icae.config.types import TokenIds
from icae.decode.prefix import Prefix
from icae.decode.torch import TorchRuntime
from icae.memory import Memory, Provenance, Segment, TokenFidelity, memory_of_segments
from icae.model import tokenize_with_offsets

OnProgress = Callable[[int, int], None]
"""Called with (spans done, spans in all)."""


@dataclass(frozen=True, kw_only=True)
class TokenizedText:
    """A text and its tokens.

    Attributes:
        text: The text.
        ids: Its token ids, int64.
        offsets: Character at which each token starts.
    """

    text: str
    ids: TokenIds
    offsets: Sequence[int]

    def part(self, first: int, end: int, *, char_start: int, char_end: int) -> TokenizedText:
        """A stretch of the text, with the tokens that it has in the whole.

        Args:
            first: Its first token.
            end: One past its last token.
            char_start: Its first character.
            char_end: One past its last character.
        """
        length = char_end - char_start
        inside = [min(max(at - char_start, 0), length) for at in self.offsets[first:end]]
        return TokenizedText(
            text=self.text[char_start:char_end], ids=self.ids[first:end], offsets=inside
        )


@dataclass(frozen=True, kw_only=True)
class Compressor:
    """Makes memories of texts.

    Attributes:
        runtime: Encodes spans and measures how they are held.
        tokenizer: The base model's tokenizer.
        provenance: What the memories are keyed by.
        span_length: Longest span in tokens.
    """

    runtime: TorchRuntime
    tokenizer: Any
    provenance: Provenance
    span_length: int

    def tokenize(self, text: str) -> TokenizedText:
        """Tokenize a text.

        Raises:
            InputError: If the text is blank or not valid Unicode.
        """
        ids, offsets = tokenize_with_offsets(self.tokenizer, text)
        return TokenizedText(text=text, ids=ids, offsets=offsets)

    def compress(
        self,
        text: TokenizedText,
        *,
        ratio: float,
        name: str,
        verify: bool = True,
        on_progress: OnProgress | None = None,
    ) -> Memory:
        """Make a memory of slots.

        Args:
            text: The text.
            ratio: Context tokens per slot, at least 1.
            name: Name of the document in the memory.
            verify: Measure how faithfully each token is held (one more forward pass).
            on_progress: Called with (spans done, spans in all).

        Raises:
            ConfigError: If the ratio is out of range.
        """
        (memory,) = self.compress_many(
            [text], ratio=ratio, names=[name], verify=verify, on_progress=on_progress
        )
        return memory

    def compress_many(
        self,
        texts: Sequence[TokenizedText],
        *,
        ratio: float,
        names: Sequence[str],
        verify: bool = True,
        on_progress: OnProgress | None = None,
    ) -> list[Memory]:
        """Make a memory of each of several texts; spans of all share forward passes.

        Args:
            texts: The texts.
            ratio: Context tokens per slot, at least 1.
            names: Name of the document in each memory.
            verify: Measure how faithfully each token is held (one more forward pass).
            on_progress: Called with (spans done, spans in all).

        Raises:
            ConfigError: If the ratio is out of range.
        """
        cut = [self.cut(text) for text in texts]
        pieces = [piece for own in cut for piece in own]
        segments = iter(self.encode(pieces, ratio=ratio, verify=verify, on_progress=on_progress))
        return [
            self.memory(text, list(itertools.islice(segments, len(own))), name=name)
            for text, own, name in zip(texts, cut, names, strict=True)
        ]

    def cut(self, text: TokenizedText) -> list[TokenIds]:
        """Token ids of each span of a text, in order."""
        plans = plan_spans(len(text.ids), span_length=self.span_length, ratio=1)
        return [text.ids[p.token_start : p.token_end] for p in plans]

    def encode(
        self,
        pieces: Sequence[TokenIds],
        *,
        ratio: float,
        verify: bool = True,
        on_progress: OnProgress | None = None,
    ) -> list[Segment]:
        """Encode spans at one ratio, in forward passes of bounded size.

        Spans of like length go together, so that little is padded.

        Args:
            pieces: Token ids of each span.
            ratio: Context tokens per slot, at least 1.
            verify: Measure how faithfully each token is held (one more forward pass).
            on_progress: Called with (spans done, spans in all).

        Raises:
            ConfigError: If the ratio is out of range.
        """
        order = sorted(range(len(pieces)), key=lambda i: -len(pieces[i]))
        made: dict[int, Segment] = {}
        for part in self.runtime.batches([len(pieces[i]) for i in order]):
            own = [pieces[i] for i in order[part]]
            encoded = self.runtime.encode(own, [slot_count(len(ids), ratio) for ids in own])
            measured: Sequence[TokenFidelity | None] = [None] * len(encoded)
            if verify:
                measured = self.runtime.fidelity(encoded, own)
            for i, ids, slots_KD, fidelity in zip(order[part], own, encoded, measured, strict=True):
                made[i] = Segment.of_slots(ids, slots_KD, ratio=ratio, token_fidelity=fidelity)
            if on_progress is not None:
                on_progress(len(made), len(pieces))
        return [made[i] for i in range(len(pieces))]

    def written_back(self, segments: Sequence[Segment]) -> list[Segment]:
        """Segments of slots, with whether the decoder, writing freely, gives them back.

        Only those are tried whose every token is reproduced under teacher forcing; of
        others it is known that free writing goes wrong.

        Args:
            segments: Segments of slots, their fidelity measured.
        """
        tried = [replace(segment, written_back=False) for segment in segments]
        faultless = [
            i
            for i, segment in enumerate(segments)
            if segment.token_fidelity is not None and segment.token_fidelity.share == 1.0
        ]
        for part in self.runtime.batches([len(segments[i].token_ids) for i in faultless]):
            own = faultless[part]
            written = self.runtime.write_back([_prefix(segments[i]) for i in own])
            for i, ids in zip(own, written, strict=True):
                exact = np.array_equal(ids, segments[i].token_ids)
                tried[i] = replace(segments[i], written_back=exact)
        return tried

    def keep(self, ids: TokenIds) -> Segment:
        """A span that stays verbatim."""
        return Segment.of_tokens(ids, hidden_size=self.provenance.hidden_size)

    def verbatim(self, text: TokenizedText, *, name: str) -> Memory:
        """Make a memory of verbatim tokens, without slots.

        Args:
            text: The text.
            name: Name of the document in the memory.
        """
        return self.memory(text, [self.keep(ids) for ids in self.cut(text)], name=name)

    def memory(self, text: TokenizedText, segments: Sequence[Segment], *, name: str) -> Memory:
        """Lay segments out as a memory of one document.

        Args:
            text: The text.
            segments: What stands for each span of its tokens, in order.
            name: Name of the document.
        """
        return memory_of_segments(
            segments,
            text=text.text,
            offsets=text.offsets,
            name=name,
            provenance=self.provenance,
        )


def _prefix(segment: Segment) -> Prefix:
    """A segment of slots as the decoder reads it to write it back."""
    layout = [(len(segment.token_ids), len(segment.slots_KD))]
    return Prefix.of_slots(segment.slots_KD, layout, "ae")
