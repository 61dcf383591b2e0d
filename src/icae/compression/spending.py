"""A number of decoder positions spent on the offers for spans, where they hold most."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

from icae.config.types import TokenIds
from icae.errors import InputError
from icae.memory import Span
from icae.memory.critical_words import critical_words

LOST = {"number": 60.0, "code": 60.0, "name": 6.0}
"""Tokens that such a word counts for where it is lost: a wrong digit is a wrong answer, and no
reader guesses it. Measured on needles (docs/fidelity.md)."""

Word = tuple[float, slice]
"""What a word counts for, and its tokens in a span."""


def words_of(tokenizer: Any, ids: TokenIds) -> list[Word]:
    """The numbers, code and names of a span of token ids."""
    pieces = [tokenizer.decode([token]) for token in ids.tolist()]
    ends = np.cumsum([len(piece) for piece in pieces])
    words = critical_words("".join(pieces))
    firsts = np.searchsorted(ends, [word.start for word in words], side="right").tolist()
    lasts = np.searchsorted(ends, [word.end for word in words]).tolist()
    return [
        (LOST[word.kind], slice(first, last + 1))
        for word, first, last in zip(words, firsts, lasts, strict=True)
    ]


def spend(
    offers: Sequence[Sequence[Span]],
    budget: int,
    *,
    enough: float,
    words: Sequence[Sequence[Word]] | None = None,
) -> list[Span]:
    """Choose one of the offers for each span so that most is held within a budget.

    Starts from the cheapest offer of each span and buys, again and again, the upgrade that
    holds most further tokens for each further position. Fidelity above `enough` counts
    nothing.

    Args:
        offers: What each span may become.
        budget: Most decoder positions.
        enough: Fidelity (0..1).
        words: The words of each span that count for more than their tokens; None: of no span.

    Raises:
        InputError: If the cheapest offers together exceed the budget.
    """
    ranked = [sorted(own, key=lambda s: (s.positions, -(s.fidelity or 0.0))) for own in offers]
    counted = [()] * len(ranked) if words is None else words
    held = [
        [_held(span, enough, own) for span in spans]
        for spans, own in zip(ranked, counted, strict=True)
    ]
    chosen = [0] * len(ranked)
    left = budget - sum(own[0].positions for own in ranked)
    if left < 0:
        raise InputError(
            "The text does not fit the budget at the highest ratio.",
            got=f"{budget} positions",
            expected=f"at least {budget - left}",
            fix="Raise the budget, or allow a higher ratio.",
        )
    heap: list[tuple[float, int, int, int]] = []

    def offer(i: int) -> None:
        now, own = chosen[i], ranked[i]
        best: tuple[float, int] | None = None
        for j in range(now + 1, len(own)):
            more = own[j].positions - own[now].positions
            gain = held[i][j] - held[i][now]
            if gain > 0 and 0 < more <= left and (best is None or gain / more > best[0]):
                best = gain / more, j
        if best is not None:
            heapq.heappush(heap, (-best[0], i, best[1], now))

    for i in range(len(ranked)):
        offer(i)
    while heap:
        _, i, j, start = heapq.heappop(heap)
        if start != chosen[i]:
            continue
        price = ranked[i][j].positions - ranked[i][chosen[i]].positions
        if price <= left:
            left -= price
            chosen[i] = j
        offer(i)
    return [own[j] for own, j in zip(ranked, chosen, strict=True)]


def _held(span: Span, enough: float, words: Sequence[Word]) -> float:
    """Tokens held, less what its lost words count for; counted up to the fidelity of enough."""
    fidelity = span.fidelity or 0.0
    if fidelity >= enough or span.token_fidelity is None:
        return span.tokens * min(fidelity, enough)
    found = span.token_fidelity.reproduced
    return span.tokens * fidelity - sum(worth for worth, own in words if not found[own].all())
