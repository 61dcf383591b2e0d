"""What continuous batching promises: answers written together, others joining between steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from icae.decode.batching import Step
from icae.decode.prefix import Request
from icae.decode.sampling import Sampler


class Decoding(Protocol):
    """Answers that are being written together, each under a key; others join between steps."""

    def __len__(self) -> int: ...

    def joinable(self, requests: Sequence[tuple[Request, int]], *, share: float = 1.0) -> int:
        """How many of some answers can join now, in their order; at least one if none is written.

        Args:
            requests: What to answer, and the most tokens of each answer.
            share: How much of the room they and those that are written may take.
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
