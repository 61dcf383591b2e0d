"""Pure arithmetic: context length -> spans -> slots -> chunks.

A context is cut into consecutive spans of at most ``span_length`` tokens. A span
of L tokens at compression ratio r gets K = ceil(L / r) slots, so a short tail
never gets a full set. Slot i of a span stands for the i-th of K equal chunks of
the span; the chunks tile the span exactly.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from numbers import Real

import numpy as np

from icae.config.types import TokenIds
from icae.errors import ConfigError, require_type

DEFAULT_RATIO = 4.0
"""Compression ratio where none is asked for."""


@dataclass(frozen=True, kw_only=True)
class SpanPlan:
    """One span before encoding.

    Attributes:
        token_start: First token of the span in the context.
        token_end: One past its last token.
        slots: Number of memory slots K it gets.
    """

    token_start: int
    token_end: int
    slots: int

    @property
    def length(self) -> int:
        """Number of context tokens in the span."""
        return self.token_end - self.token_start


def slot_count(length: int, ratio: float) -> int:
    """Number of slots for ``length`` tokens: ceil(length / ratio), at most ``length``.

    Raises:
        ConfigError: If either is below 1 or the ratio is not finite.
    """
    if length < 1:
        raise ConfigError(
            "A span needs at least one token.", got=str(length), expected=">= 1 token"
        )
    check_ratio(ratio)
    # The guard keeps 10 / (10 / 3) at 3 slots where float division gives 3.0000000000000004.
    return min(length, max(1, math.ceil(length / ratio - 1e-9)))


def check_ratio(ratio: float) -> float:
    """Return the ratio if it is a finite number of at least 1, else raise ConfigError.

    What is no number at all is an InputError.
    """
    require_type(ratio, Real, what="a ratio", fix="Pass a number, such as 4.")
    if not math.isfinite(ratio) or ratio < 1:
        raise ConfigError(
            "The compression ratio is context tokens per slot.",
            got=str(ratio),
            expected="a number >= 1, for example 4 for 4x",
        )
    return ratio


def plan_spans(length: int, *, span_length: int, ratio: float) -> tuple[SpanPlan, ...]:
    """Cut a context into spans and give each its number of slots.

    Raises:
        ConfigError: If an argument is out of range.
    """
    if span_length < 1:
        raise ConfigError("The span length is out of range.", got=str(span_length), expected=">= 1")
    if length < 1:
        raise ConfigError("There is nothing to compress.", got=f"{length} tokens", expected=">= 1")
    edges = [*range(0, length, span_length), length]
    return tuple(
        SpanPlan(token_start=start, token_end=end, slots=slot_count(end - start, ratio))
        for start, end in itertools.pairwise(edges)
    )


def chunk_bounds(length: int, slots: int) -> tuple[tuple[int, int], ...]:
    """Cut a span of ``length`` tokens into ``slots`` chunks whose sizes differ by at most one.

    Raises:
        ConfigError: If there are more slots than tokens, or none.
    """
    if not 1 <= slots <= length:
        raise ConfigError(
            "A span cannot be cut into that many chunks.",
            got=f"{slots} chunks for {length} tokens",
            expected="between 1 and the number of tokens",
        )
    edges = [i * length // slots for i in range(slots + 1)]
    return tuple(itertools.pairwise(edges))


def chunk_of_tokens(length: int, slots: int) -> TokenIds:
    """Index of the chunk that each token of a span lies in, [length]; see `chunk_bounds`."""
    return (np.arange(1, length + 1) * slots + length - 1) // length - 1


@functools.lru_cache(maxsize=4096)
def chunk_centres(length: int, slots: int) -> tuple[int, ...]:
    """Position of the token at the centre of each chunk (rounded down)."""
    return tuple((start + end - 1) // 2 for start, end in chunk_bounds(length, slots))


def needs_every_token(length: int, fidelity: float) -> bool:
    """Whether a fidelity leaves room for no wrong token in a span of ``length`` tokens."""
    return fidelity * length > length - 1
