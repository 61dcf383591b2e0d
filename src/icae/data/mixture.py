"""Which documents go into the pack: training or validation, and in which shares.

Training draws windows evenly from the tokens of the pack, so a source weighs as much as its
share of those tokens. Documents are chosen by numbers hashed from their texts: neither the
side nor the choice of a document depends on the order of the corpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icae.data.words import Hashes, uniform


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a source offers and what is wanted of it.

    Attributes:
        available: Tokens of its documents on the training side, each counted once.
        weight: Its weight; shares are weights over their sum.
        repeat: Most times that a document may be used.
    """

    available: int
    weight: float
    repeat: int = 1


def is_validation(keys: Hashes, *, share: float, seed: int) -> NDArray[np.bool_]:
    """Decide for each document whether it is held out for validation.

    Args:
        keys: uint64 ``[N, 2]``, keys of the texts.
        share: Share of the documents, 0..1.
        seed: Seed of the split.

    Returns:
        bool ``[N]``.
    """
    return uniform(keys, seed=seed, purpose="validation") < share


def plan_tokens(demands: Mapping[str, Demand], *, budget: int | None) -> dict[str, int]:
    """Tokens to take from each source.

    Without a budget the total is the largest at which every source reaches its share exactly.
    With one, each source gives its share of the budget, or all it has if that is less.

    Args:
        demands: Source -> demand; weights above 0.
        budget: Tokens in all, or None.

    Returns:
        Source -> tokens, at most ``repeat * available``.
    """
    weights = sum(demand.weight for demand in demands.values())
    if budget is None:
        budget = min(
            (
                int(demand.repeat * demand.available * weights / demand.weight)
                for demand in demands.values()
            ),
            default=0,
        )
    return {
        name: min(round(budget * demand.weight / weights), demand.repeat * demand.available)
        for name, demand in demands.items()
    }


def choose_copies(
    keys: Hashes, tokens: NDArray[np.int64], *, wanted: int, seed: int
) -> NDArray[np.int64]:
    """Choose documents of one source, some of them more than once, for a number of tokens.

    Whole rounds over all documents come first. The rest is filled in the order of the hashed
    numbers with every document that still fits, so that what is missing in the end is less
    than the shortest document left out.

    Args:
        keys: uint64 ``[N, 2]``, keys of the texts.
        tokens: int64 ``[N]``, tokens of each.
        wanted: Tokens to choose.
        seed: Seed of the choice.

    Returns:
        int64 ``[N]``, copies of each document.
    """
    total = int(tokens.sum())
    rounds = wanted // total if total else 0
    copies = np.full(len(tokens), rounds, dtype=np.int64)
    left = wanted - rounds * total
    order = np.lexsort((keys[:, 1], keys[:, 0], uniform(keys, seed=seed, purpose="choice")))
    for document in order:
        if left <= 0:
            break
        if tokens[document] <= left:
            copies[document] += 1
            left -= int(tokens[document])
    return copies
