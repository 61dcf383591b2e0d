"""Small value types shared by every layer. No third-party import but numpy."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PositionLayout = Literal["default", "uniform-encoder", "uniform"]
SlotHead = Literal["plain", "residual"]
MemoryEmbedding = Literal["shared", "per-slot"]
Framing = Literal["behind", "around", "between"]
MemoryForm = Literal["embeddings", "key-values"]
LoraTargets = Literal["qv", "all-linear"]
Objective = Literal["ae", "lm", "recall", "ft"]
AnswerMean = Literal["tokens", "answers"]
Method = Literal["memory", "full-context", "gist", "autocompressor"]
Compilation = Literal["none", "layers"]
Sharing = Literal["replicas", "frozen-shards"]
SpanKind = Literal["slots", "tokens", "key-values"]

POSITION_LAYOUTS: tuple[PositionLayout, ...] = ("default", "uniform-encoder", "uniform")
OBJECTIVES: tuple[Objective, ...] = ("ae", "lm", "recall", "ft")
"""All objectives, in the order of reports."""
OWN_TOKENS: tuple[Objective, ...] = ("ae", "lm", "ft")
"""Objectives with learned tokens of their own, in the order in which adapters hold them."""

TokenIds = NDArray[np.int64]
"""A 1-D array of token ids."""

FloatArray = NDArray[np.float32]
"""An array of float32."""


@dataclass(frozen=True, kw_only=True)
class KeyValueShape:
    """What a place of a decoder's key-value cache holds: the same in every layer.

    Attributes:
        layers: Layers of the decoder, Y.
        heads: Key-value heads of a layer, H.
        width: Numbers of a head's key, and of its value, W.
    """

    layers: int
    heads: int
    width: int

    @property
    def axes(self) -> tuple[int, int, int, int]:
        """Axes of the numbers of one place: [Y, 2, H, W], keys before values."""
        return (self.layers, 2, self.heads, self.width)

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.heads} heads of {self.width}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What `ask` returns.

    Attributes:
        text: The answer, without special tokens.
        prompt_tokens: Decoder positions read before the first answer token
            (slots or context tokens, plus the prompt).
        memory_positions: How many of them stand for the context (slots and verbatim
            tokens of a memory, or the raw tokens).
        answer_tokens: Tokens generated, the end token not counted.
        seconds: Wall time from the call to the last token.
        first_token_seconds: Wall time from the call to the first token.
        finished: Whether the model ended the answer itself (else the limit cut it).
        runtime: What ran the decoder and in what precision, such as ``torch bfloat16``.
        sources: Documents of the memory that was asked, by name; passages of a store with their
            characters, as in ``report.txt[1200:2400]``.
    """

    text: str
    prompt_tokens: int
    memory_positions: int
    answer_tokens: int
    seconds: float
    first_token_seconds: float
    finished: bool
    runtime: str = "torch"
    sources: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """As a notebook shows it: the answer, where it comes from, and what it cost."""
        cost = (
            f"{self.prompt_tokens:,} positions read, {self.memory_positions:,} of them for the "
            f"context; {self.answer_tokens:,} tokens in {self.seconds:.1f} s"
        )
        told = [*(f"from {one}" for one in self.sources), cost]
        small = "<br>".join(map(html.escape, told))
        text = html.escape(self.text.strip() or "(no text)")
        return f'<p style="white-space:pre-wrap">{text}</p><p><small>{small}</small></p>'


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One span written back out: from its slots alone by greedy decoding, or verbatim.

    Attributes:
        span: Index of the span in the memory.
        text: What the decoder wrote; of a verbatim span, its text as it stands.
        original: The source text of the span, or None if it was not kept.
        token_ids: The ids generated or kept, as many as the span has tokens.
        exact_prefix: Share of leading tokens equal to the original's (0..1), or None.
    """

    span: int
    text: str
    original: str | None
    token_ids: tuple[int, ...]
    exact_prefix: float | None
