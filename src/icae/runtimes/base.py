"""What a runtime does: run the frozen decoder behind slots or behind plain tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from icae.memory import Memory
from icae.types import FloatArray, Objective, TokenIds


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """What the decoder reads before the prompt: the slots of a memory.

    Attributes:
        slots_KD: Slots [K, D], float32.
        spans: (context tokens, slots) of each span, in order.
        objective: Objective token placed behind the slots.
    """

    slots_KD: FloatArray
    spans: tuple[tuple[int, int], ...]
    objective: Objective

    @classmethod
    def of_memory(cls, memory: Memory, objective: Objective) -> Prefix:
        """All slots of a memory."""
        spans = tuple((span.tokens, span.slots) for span in memory.spans)
        return cls(slots_KD=memory.slots, spans=spans, objective=objective)

    @classmethod
    def of_span(cls, memory: Memory, index: int, objective: Objective) -> Prefix:
        """The slots of one span of a memory."""
        span = memory.spans[index]
        slots_KD = memory.slots[span.slot_start : span.slot_end]
        return cls(slots_KD=slots_KD, spans=((span.tokens, span.slots),), objective=objective)


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Tokens written by greedy decoding.

    Attributes:
        token_ids: The ids, without the stop token.
        stopped: Whether a stop token ended it (else the limit did).
        positions: Decoder positions read before the first token.
        first_token_seconds: Wall time to the first token.
        seconds: Wall time in all.
    """

    token_ids: tuple[int, ...]
    stopped: bool
    positions: int
    first_token_seconds: float
    seconds: float


class Runtime(Protocol):
    """Runs the frozen decoder."""

    @property
    def context_window(self) -> int:
        """Most decoder positions, prompt and answer together."""
        ...

    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions."""
        ...

    def generate(
        self,
        prefix: Prefix | None,
        prompt_ids: TokenIds,
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        on_token: Callable[[int], None] | None = None,
    ) -> Generated:
        """Greedy decoding of one answer behind ``[slots ; objective ; prompt]``."""
        ...

    def write_back(self, prefixes: Sequence[Prefix]) -> list[tuple[int, ...]]:
        """Greedy reconstruction of single-span memories, each to its own length."""
        ...
