"""How faithfully each single token is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from icae.config.parsing import check
from icae.config.types import FloatArray
from icae.memory.checks import ByValue, check_array

CERTAIN = 255
"""A confidence of 1: it is stored in steps of 1/255."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenFidelity(ByValue):
    """What the decoder makes of each of T tokens under teacher forcing.

    Attributes:
        reproduced: bool [T], whether its most likely token was the right one. A verbatim
            token always is.
        confidence: uint8 [T], the probability it gave the right token, in steps of 1/255,
            so that a file keeps it exactly. A verbatim token has 255.

    Raises:
        ConfigError: If they are not two arrays of these types and of one length.
    """

    reproduced: NDArray[np.bool_] = field(repr=False)
    confidence: NDArray[np.uint8] = field(repr=False)

    def __post_init__(self) -> None:
        for name, dtype in (("reproduced", np.bool_), ("confidence", np.uint8)):
            message = f"token_fidelity.{name} is not a list of {np.dtype(dtype)}."
            check_array(message, getattr(self, name), dtype, 1)
        lengths = len(self.reproduced), len(self.confidence)
        one = "one value of each for every token"
        check(lengths[0] == lengths[1], "token_fidelity is of two lengths.", lengths, one)

    @classmethod
    def of_probabilities(
        cls, reproduced: NDArray[np.bool_], probabilities: FloatArray
    ) -> TokenFidelity:
        """Round measured probabilities of the right tokens, float [T], to steps of 1/255."""
        steps = np.rint(np.clip(probabilities, 0.0, 1.0) * CERTAIN)
        return cls(reproduced=reproduced, confidence=steps.astype(np.uint8))

    @classmethod
    def of_verbatim(cls, tokens: int) -> TokenFidelity:
        """The fidelity of tokens that are kept as they are."""
        certain = np.full(tokens, CERTAIN, dtype=np.uint8)
        return cls(reproduced=np.ones(tokens, dtype=np.bool_), confidence=certain)

    def __len__(self) -> int:
        return len(self.reproduced)

    @property
    def share(self) -> float:
        """Share of the tokens that are reproduced (0..1): the fidelity of a span."""
        return float(self.reproduced.mean())

    @property
    def probabilities(self) -> FloatArray:
        """The confidence as probabilities (0..1), float32 [T]."""
        return (self.confidence / CERTAIN).astype(np.float32)

    def part(self, start: int, end: int) -> TokenFidelity:
        """The fidelity of the tokens ``start..end``, end exclusive."""
        return TokenFidelity(
            reproduced=self.reproduced[start:end], confidence=self.confidence[start:end]
        )


def join_token_fidelity(parts: Sequence[TokenFidelity | None]) -> TokenFidelity | None:
    """The fidelity of tokens one after the other; None if a part was not measured."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return TokenFidelity(
        reproduced=np.concatenate([part.reproduced for part in known]),
        confidence=np.concatenate([part.confidence for part in known]),
    )
