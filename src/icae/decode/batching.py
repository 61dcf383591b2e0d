"""Which answers are written together, for every runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from icae.decode.prefix import Request

if TYPE_CHECKING:
    from icae.decode.sampling import Sampler

Step = Mapping[int, int]
"""One more token of rows, by the keys of these."""

ROWS_PER_BATCH = 128
"""Most answers written together."""

POSITIONS_PER_BATCH = 8192
"""Most places of key-value cache that a batch of answers takes, padding included."""


class Decoding(Protocol):
    """Answers that are being written together, each under a key; others join between steps."""

    def __len__(self) -> int: ...

    def joinable(self, requests: Sequence[tuple[Request, int]]) -> int:
        """How many of some answers can join now, in their order; at least one if none is written.

        Args:
            requests: What to answer, and the most tokens of each answer.
        """
        ...

    def join(
        self,
        requests: Mapping[int, tuple[Request, int]],
        samplers: Mapping[int, Sampler | None] | None = None,
    ) -> Step:
        """Begin answers; memories that are not known are read first.

        Args:
            requests: What to answer and the most tokens of each answer, under new keys.
            samplers: What chooses the tokens of answers that are not written greedily.

        Returns:
            First tokens; those of answers that are left out come with the next step.

        Raises:
            InputError: If a memory cannot be read; none of these has begun then.
        """
        ...

    def step(self) -> Step:
        """One more token of every answer."""
        ...

    def leave(self, keys: Collection[int]) -> None:
        """Give answers up."""
        ...


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
