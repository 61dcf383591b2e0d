"""Which documents go into the pack, on which side, and how often.

Training draws windows evenly from the tokens of the pack, so a source weighs as much as its
share of those tokens. Documents are chosen by numbers hashed from their texts: neither the
side nor the choice of a document depends on the order of the corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icae.data.build_config import BuildConfig, SourceConfig
from icae.data.dedup import KEPT, Verdicts, find_duplicates
from icae.data.gathering import Gathered
from icae.data.words import Hashes, uniform
from icae.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What happens to each of N documents.

    Attributes:
        verdicts: uint8 ``[N]``, kept or which kind of duplicate.
        validation: bool ``[N]``, held out for validation.
        copies: int64 ``[N]``, times that it goes into the training shards.
        wanted: Training tokens planned for each source.
    """

    verdicts: Verdicts
    validation: NDArray[np.bool_]
    copies: NDArray[np.int64]
    wanted: tuple[int, ...]


def make_plan(config: BuildConfig, found: Gathered) -> Plan:
    """Find duplicates, split, and choose for the shares asked for.

    Raises:
        InputError: If a source has no document left for training.
        MissingDependencyError: If datasketch is not installed.
    """
    keys, tokens = found.keys, found.tokens
    verdicts = find_duplicates(keys, found.signatures)
    kept = verdicts == KEPT
    validation = kept & (
        uniform(keys, seed=config.seed, purpose="validation") < config.validation_share
    )
    members = [
        np.flatnonzero(kept & ~validation & (found.sources == i))
        for i in range(len(config.sources))
    ]
    available = [int(tokens[rows].sum()) for rows in members]
    if not all(available):
        empty = (one.name for one, left in zip(config.sources, available, strict=True) if not left)
        raise InputError(
            "A source has no document left for training.",
            got=", ".join(empty),
            expected="documents that pass every check",
            fix="remove the source, or give it more text",
        )
    wanted = plan_tokens(config.sources, available, budget=config.tokens)
    copies = np.zeros(len(tokens), dtype=np.int64)
    for rows, count in zip(members, wanted, strict=True):
        copies[rows] = choose_copies(keys[rows], tokens[rows], wanted=count, seed=config.seed)
    return Plan(verdicts=verdicts, validation=validation, copies=copies, wanted=wanted)


def plan_tokens(
    sources: Sequence[SourceConfig], available: Sequence[int], *, budget: int | None
) -> tuple[int, ...]:
    """Tokens to take from each source.

    Without a budget the total is the largest at which every source reaches its share exactly.
    With one, each source gives its share of the budget, or all it has if that is less.

    ``available`` are the tokens of each one's documents on the training side, each counted once.
    """
    weights = sum(source.weight for source in sources)
    most = [source.repeat * tokens for source, tokens in zip(sources, available, strict=True)]
    if budget is None:
        budget = min(
            int(limit * weights / source.weight)
            for source, limit in zip(sources, most, strict=True)
        )
    return tuple(
        min(round(budget * source.weight / weights), limit)
        for source, limit in zip(sources, most, strict=True)
    )


def choose_copies(
    keys: Hashes, tokens: NDArray[np.int64], *, wanted: int, seed: int
) -> NDArray[np.int64]:
    """Choose documents of one source, some of them more than once, for a number of tokens.

    Whole rounds over all documents come first. The rest is filled in the order of the hashed
    numbers with every document that still fits, so that what is missing in the end is less
    than the shortest document left out. Of keys uint64 ``[N, 2]`` and tokens int64 ``[N]`` come
    the copies of each document, int64 ``[N]``.
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
