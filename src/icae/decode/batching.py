"""Which answers are written together, for every runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from icae.decode.prefix import Request

Step = Mapping[int, int]
"""One more token of rows, by the keys of these."""

ROWS_PER_BATCH = 128
"""Most answers written together."""

POSITIONS_PER_BATCH = 8192
"""Most places of key-value cache that a batch of answers takes, padding included."""


def row_batches(
    requests: Sequence[Request], sizes: Sequence[int], *, pads: bool
) -> Iterator[list[int]]:
    """Requests that are answered together: of like length, those of one memory side by side.

    Args:
        requests: What to answer.
        sizes: Places that each takes, its answer included.
        pads: Whether rows of a batch may differ in length.

    Yields:
        Indices of the requests of one batch.
    """

    def place(i: int) -> tuple[int, str, int]:
        prefix = requests[i].prefix
        return (0, "", sizes[i]) if prefix is None else (prefix.positions, prefix.digest, sizes[i])

    batch: list[int] = []
    longest = 0
    for i in sorted(range(len(requests)), key=place):
        longest = max(longest, sizes[i])
        full = len(batch) == ROWS_PER_BATCH or longest * (len(batch) + 1) > POSITIONS_PER_BATCH
        odd = batch and not pads and place(i)[::2] != place(batch[0])[::2]
        if batch and (full or odd):
            yield batch
            batch, longest = [], sizes[i]
        batch.append(i)
    if batch:
        yield batch


def most_places(rows: Iterable[tuple[int, int]], *, pads: bool) -> int:
    """Most places of cache that rows take together at any time until the last one has ended.

    Args:
        rows: Of each its places now, and the tokens that it may still get.
        pads: Whether each row takes as many places as the longest one.
    """
    most = longest = together = 0
    for alive, (now, left) in enumerate(sorted(rows, key=lambda row: -row[1]), start=1):
        longest, together = max(longest, now), together + now
        most = max(most, (alive * longest if pads else together) + alive * left)
    return most


def span_batches(lengths: Sequence[int], *, bound: int) -> Iterator[slice]:
    """Consecutive slices of spans of at most `bound` tokens, padding included, or of one span."""
    start, longest = 0, 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if i > start and longest * (i - start + 1) > bound:
            yield slice(start, i)
            start, longest = i, length
    if start < len(lengths):
        yield slice(start, len(lengths))
