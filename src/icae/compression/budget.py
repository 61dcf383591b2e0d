"""Spending a number of decoder positions where they hold most tokens."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from icae.errors import InputError
from icae.memory import Segment


def spend(offers: Sequence[Sequence[Segment]], budget: int, *, enough: float) -> list[Segment]:
    """Choose one offer for each span so that most tokens are held within a budget.

    Starts from the cheapest offer of each span and buys, again and again, the upgrade that
    holds most further tokens for each further position. Fidelity above `enough` counts
    nothing.

    Args:
        offers: For each span, what it can be bought at; every fidelity is known.
        budget: Most decoder positions of all spans together.
        enough: Fidelity beyond which more is worth nothing (0..1).

    Returns:
        One segment for each span.

    Raises:
        InputError: If the cheapest offers together exceed the budget.
    """
    ranked = [sorted(own, key=lambda s: (s.positions, -_fidelity(s))) for own in offers]
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
        now = ranked[i][chosen[i]]
        best: tuple[float, int] | None = None
        for j in range(chosen[i] + 1, len(ranked[i])):
            more = ranked[i][j].positions - now.positions
            gain = _held(ranked[i][j], enough) - _held(now, enough)
            if gain > 0 and 0 < more <= left and (best is None or gain / more > best[0]):
                best = gain / more, j
        if best is not None:
            heapq.heappush(heap, (-best[0], i, best[1], chosen[i]))

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


def _fidelity(segment: Segment) -> float:
    assert segment.token_fidelity is not None
    return segment.token_fidelity.share


def _held(segment: Segment, enough: float) -> float:
    """Tokens held, counted up to the fidelity that is enough."""
    return len(segment.token_ids) * min(_fidelity(segment), enough)
