"""What a key-value cache holds, input by input, so that nothing is read twice.

Two texts share a cache as far as their decoder inputs are the same at the same positions:
the memory of the question before, the turns of a conversation, or the documents of a memory
to which older turns were added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from icae.config import ModelConfig
from icae.config.types import FloatArray, TokenIds
from icae.decode.base import Prefix, input_positions

KEY_BYTES = 16
"""Bytes of the digest that stands for a slot."""


@dataclass(frozen=True, kw_only=True)
class ReadSoFar:
    """What was read into a cache.

    Attributes:
        keys: What stands for each decoder input: the id of a token, the digest of a slot,
            or the name of an objective vector.
        positions: Its position.
    """

    keys: list[Hashable]
    positions: list[int]

    @classmethod
    def of(
        cls, config: ModelConfig, prefix: Prefix | None, prompt_ids: Sequence[int] | TokenIds = ()
    ) -> ReadSoFar:
        """What is read when all of a memory and a prompt is.

        Args:
            config: Architecture of the adapter.
            prefix: The memory, or None.
            prompt_ids: The prompt.
        """
        keys: list[Hashable] = []
        if prefix is not None:
            marker = [(prefix.objective, i) for i in range(config.objective_tokens)]
            keys += marker[: config.front]
            for part in prefix.parts:
                keys += part.read_by(_Keys())
            keys += marker
        keys += [int(i) for i in prompt_ids]
        return cls(keys=keys, positions=input_positions(config, prefix, len(prompt_ids)))

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, token: int) -> None:
        """One more token was read, behind the others."""
        self.keys.append(token)
        self.positions.append(self.positions[-1] + 1)

    def shared(self, other: ReadSoFar) -> int:
        """How many leading inputs both have in common."""
        mine = zip(self.keys, self.positions, strict=True)
        theirs = zip(other.keys, other.positions, strict=True)
        pairs = zip(mine, theirs, strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self), len(other)))


class _Keys:
    """What stands for each input of a part."""

    def read_slots(self, slots_KD: FloatArray) -> list[Hashable]:
        rows = np.ascontiguousarray(slots_KD, dtype="<f4")
        return [hashlib.blake2b(row, digest_size=KEY_BYTES).digest() for row in rows]

    def read_tokens(self, token_ids: TokenIds) -> list[Hashable]:
        return [int(i) for i in token_ids]
