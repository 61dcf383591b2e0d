"""Second stage of a data build: which documents go where, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icae.data.build_config import BuildConfig
from icae.data.chunks import Chunk
from icae.data.dedup import KEPT, Verdicts, find_duplicates
from icae.data.mixture import Demand, choose_copies, is_validation, plan_tokens
from icae.data.words import Hashes
from icae.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What happens to each of the N documents of all chunks, in order.

    Attributes:
        chunks: The chunks.
        firsts: int64 ``[chunks + 1]``, first document of each chunk, and N.
        owners: Source of each chunk, by number.
        sources: int64 ``[N]``, source of each document, by number.
        tokens: int64 ``[N]``, its tokens.
        verdicts: uint8 ``[N]``, kept or which kind of duplicate.
        validation: bool ``[N]``, held out for validation.
        copies: int64 ``[N]``, times that it goes into the training shards.
        wanted: Training tokens planned for each source.
    """

    chunks: tuple[Chunk, ...]
    firsts: NDArray[np.int64]
    owners: tuple[int, ...]
    sources: NDArray[np.int64]
    tokens: NDArray[np.int64]
    verdicts: Verdicts
    validation: NDArray[np.bool_]
    copies: NDArray[np.int64]
    wanted: Mapping[str, int]

    def of_chunk(self, values: NDArray[np.int64], chunk: int) -> NDArray[np.int64]:
        """The part of an array over all documents that belongs to one chunk."""
        return values[self.firsts[chunk] : self.firsts[chunk + 1]]


def make_plan(config: BuildConfig, chunks: Sequence[Chunk], owners: Sequence[int]) -> Plan:
    """Find duplicates over all chunks, split, and choose for the shares asked for.

    Args:
        config: The build.
        chunks: All chunks in order.
        owners: Source of each chunk, by number.

    Raises:
        InputError: If a source has no document left for training.
        MissingDependencyError: If datasketch is not installed.
    """
    rows = [chunk.documents() for chunk in chunks]
    keys = np.concatenate([keys for keys, _, _ in rows])
    signatures = np.concatenate([signatures for _, signatures, _ in rows])
    tokens = np.concatenate([tokens for _, _, tokens in rows])
    sizes = [len(counts) for _, _, counts in rows]
    del rows
    verdicts = find_duplicates(keys, signatures, config.dedup)
    del signatures
    sources = np.repeat(np.array(owners, dtype=np.int64), sizes)
    kept = verdicts == KEPT
    validation = kept & is_validation(keys, share=config.validation_share, seed=config.seed)
    copies, wanted = _choose(config, keys, tokens, sources, kept & ~validation)
    return Plan(
        chunks=tuple(chunks),
        firsts=np.cumsum([0, *sizes]),
        owners=tuple(owners),
        sources=sources,
        tokens=tokens,
        verdicts=verdicts,
        validation=validation,
        copies=copies,
        wanted=wanted,
    )


def _choose(
    config: BuildConfig,
    keys: Hashes,
    tokens: NDArray[np.int64],
    sources: NDArray[np.int64],
    offered: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Copies of each document for training, and the tokens planned for each source."""
    members = [np.flatnonzero(offered & (sources == i)) for i in range(len(config.sources))]
    demands = {
        source.name: Demand(
            available=int(tokens[rows].sum()), weight=source.weight, repeat=source.repeat
        )
        for source, rows in zip(config.sources, members, strict=True)
    }
    empty = [name for name, demand in demands.items() if not demand.available]
    if empty:
        raise InputError(
            "A source has no document left for training.",
            got=", ".join(empty),
            expected="documents that pass every check",
            fix="remove the source, or lower the thresholds of the configuration",
        )
    wanted = plan_tokens(demands, budget=config.tokens)
    copies = np.zeros(len(tokens), dtype=np.int64)
    for source, rows in zip(config.sources, members, strict=True):
        copies[rows] = choose_copies(
            keys[rows], tokens[rows], wanted=wanted[source.name], seed=config.seed
        )
    return copies, wanted
