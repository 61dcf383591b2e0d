"""Which answers are written together, and the clock of each; for every runtime."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from icae.decode.prefix import Generated, Request


@dataclass(frozen=True, kw_only=True)
class Step:
    """One more token of rows.

    Attributes:
        rows: Keys of the rows.
        tokens: The token of each.
    """

    rows: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(kw_only=True)
class RowClock:
    """Collects the tokens of one answer and when they came.

    Attributes:
        begin: When its batch began (`time.perf_counter`).
        token_ids: Tokens so far, without the stop token.
        stopped: Whether a stop token came.
        first: Seconds to the first token.
        last: Seconds to the last token.
    """

    begin: float
    token_ids: list[int] = field(default_factory=list)
    stopped: bool = False
    first: float = 0.0
    last: float = 0.0

    def take(self, token: int, stop_ids: Collection[int]) -> None:
        """Take the next token."""
        self.last = time.perf_counter() - self.begin
        self.first = self.first or self.last
        if token in stop_ids:
            self.stopped = True
        else:
            self.token_ids.append(token)

    def generated(self, *, positions: int) -> Generated:
        """What was written behind so many decoder positions."""
        return Generated(
            token_ids=tuple(self.token_ids),
            stopped=self.stopped,
            positions=positions,
            first_token_seconds=self.first,
            seconds=self.last,
        )


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
