"""Exact and near duplicates in a corpus: of each group, the first document is kept.

Exact: the same words in the same order. Near: MinHash over all runs of `SHINGLE_WORDS`
words estimates the Jaccard similarity of two whole documents; banded LSH finds the pairs to
compare. Needs datasketch (the ``data`` extra).

Memory: 272 bytes for each document; only those that share a band with another enter the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.config.extras import import_extra
from icae.data.words import Hashes, ngram_hashes, scramble

KEPT, EXACT, NEAR = 0, 1, 2

Signatures = NDArray[np.uint32]
Verdicts = NDArray[np.uint8]

_SCHEME = "affine32"
_PIECE = 4096
_RECALL = 0.95

THRESHOLD = 0.8
"""Estimated Jaccard similarity from which on two documents are near duplicates.

A pair at the threshold is found with a probability of at least .95.
"""
PERMUTATIONS = 64
"""Values in a signature; the estimate at .8 has a standard error of .05."""
SHINGLE_WORDS = 5
"""Words in a run."""


class Sketcher:
    """Computes MinHash signatures.

    Raises:
        MissingDependencyError: If datasketch is not installed.
    """

    def __init__(self, *, seed: int) -> None:
        self._sketch = _datasketch().MinHash(
            num_perm=PERMUTATIONS,
            seed=seed % 2**32,
            scheme=_SCHEME,
            hashfunc=lambda shingle: shingle,  # a hash already
        )

    def __call__(self, words: Hashes) -> Signatures:
        """Sketch a document of hashed words uint64 ``[W]``: uint32 ``[permutations]``.

        With fewer words than a shingle, all of them together are the one shingle.
        """
        n = max(1, min(SHINGLE_WORDS, len(words)))
        shingles = ngram_hashes(words, n) >> np.uint64(32)
        self._sketch.clear()
        for start in range(0, len(shingles), _PIECE):
            self._sketch.update_batch(shingles[start : start + _PIECE].astype(np.uint32))
        return np.array(self._sketch.hashvalues, dtype=np.uint32)


def bands_of(threshold: float) -> tuple[int, int]:
    """Bands of the LSH and rows in each: the longest rows that keep the recall."""
    rows = next(
        rows
        for rows in range(PERMUTATIONS // 2, 0, -1)
        if rows == 1 or 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= _RECALL
    )
    return PERMUTATIONS // rows, rows


def find_duplicates(
    keys: Hashes, signatures: Signatures, *, threshold: float = THRESHOLD
) -> Verdicts:
    """Decide which documents of a corpus go.

    Documents are taken in order; one goes if it has the key of an earlier one (`EXACT`), or
    its signature is as similar as the threshold to that of an earlier one that was kept
    (`NEAR`). Of keys uint64 ``[N, 2]`` and signatures uint32 ``[N, permutations]`` come the
    verdicts, uint8 ``[N]``.

    Raises:
        MissingDependencyError: If datasketch is not installed.
    """
    datasketch = _datasketch()
    verdicts = np.full(len(keys), EXACT, dtype=np.uint8)
    if len(keys):
        verdicts[np.unique(keys, axis=0, return_index=True)[1]] = KEPT
    bands, rows = bands_of(threshold)
    unique = np.flatnonzero(verdicts == KEPT)
    index = datasketch.MinHashLSH(num_perm=PERMUTATIONS, params=(bands, rows), threshold=threshold)
    template = datasketch.MinHash(num_perm=PERMUTATIONS, scheme=_SCHEME)
    for document in unique[_shares_a_band(signatures, unique, bands=bands, rows=rows)]:
        sketch = template.copy()
        sketch.hashvalues = signatures[document]
        found = index.query(sketch)
        if found and similarities(signatures, document, found).max() >= threshold:
            verdicts[document] = NEAR
        else:
            index.insert(int(document), sketch, check_duplication=False)
    return verdicts


def similarities(
    signatures: Signatures, document: int, others: Sequence[int]
) -> NDArray[np.float64]:
    """Estimated Jaccard similarity of one row of signatures to others, float64 0..1."""
    agree = signatures[np.asarray(others)] == signatures[document]
    return np.asarray(agree.mean(axis=1), dtype=np.float64)


def _shares_a_band(
    signatures: Signatures, documents: NDArray[np.int64], *, bands: int, rows: int
) -> NDArray[np.bool_]:
    """Which documents have some band in common with another one."""
    shared = np.zeros(len(documents), dtype=bool)
    for band in range(bands):
        values = np.zeros(len(documents), dtype=np.uint64)
        for column in range(band * rows, (band + 1) * rows):
            values = scramble(values) ^ signatures[documents, column]
        values = scramble(values)
        order = np.argsort(values, kind="stable")
        same = np.flatnonzero(values[order[1:]] == values[order[:-1]])
        shared[order[same]] = True
        shared[order[same + 1]] = True
    return shared


def _datasketch() -> Any:
    return import_extra("datasketch", purpose="Finding near duplicates", extra="data")
