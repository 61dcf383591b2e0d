"""What a runtime does: run the frozen decoder behind a memory or behind plain tokens."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from icae.config import ModelConfig
from icae.config.types import FloatArray, Objective, SpanKind, TokenIds
from icae.errors import InputError
from icae.memory import Memory
from icae.memory.provenance import SlotDtype
from icae.model.positions import decoder_positions

Read = TypeVar("Read", covariant=True)


class PartReader(Protocol[Read]):
    """What a runtime does with each kind of part of a prefix."""

    def read_slots(self, slots_KD: FloatArray) -> Read:
        """Take slots [K, D] as decoder inputs."""
        ...

    def read_tokens(self, token_ids: TokenIds) -> Read:
        """Take token ids [N] as decoder inputs."""
        ...


class PrefixPart(Protocol):
    """A run of decoder inputs of one kind."""

    def __len__(self) -> int:
        """Number of decoder inputs."""
        ...

    def read_by(self, reader: PartReader[Read]) -> Read:
        """Hand the inputs to the method of the reader for their kind."""
        ...


@dataclass(frozen=True, kw_only=True)
class SlotsPart:
    """Slots [K, D], float32, as decoder inputs."""

    slots_KD: FloatArray

    def __len__(self) -> int:
        return len(self.slots_KD)

    def read_by(self, reader: PartReader[Read]) -> Read:
        """Hand the slots to the reader."""
        return reader.read_slots(self.slots_KD)


@dataclass(frozen=True, kw_only=True)
class TokensPart:
    """Token ids [N], int64, as decoder inputs."""

    token_ids: TokenIds

    def __len__(self) -> int:
        return len(self.token_ids)

    def read_by(self, reader: PartReader[Read]) -> Read:
        """Hand the token ids to the reader."""
        return reader.read_tokens(self.token_ids)


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """What the decoder reads before the prompt: a memory.

    Attributes:
        parts: Slots and verbatim tokens, in order.
        spans: (context tokens, decoder positions) of each span, in order; of a verbatim
            span of L tokens, (L, L).
        objective: Objective token placed behind them.
    """

    parts: tuple[PrefixPart, ...]
    spans: tuple[tuple[int, int], ...]
    objective: Objective

    @property
    def positions(self) -> int:
        """Decoder positions of all parts, the objective token not counted."""
        return sum(positions for _, positions in self.spans)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all that the decoder reads: two prefixes with one digest are the same."""
        digest = hashlib.sha256(repr((self.spans, self.objective)).encode())
        for part in self.parts:
            kind, data = part.read_by(_PartBytes())
            digest.update(f"{kind}{len(data)}:".encode())
            digest.update(data)
        return digest.hexdigest()

    @classmethod
    def of_slots(
        cls, slots_KD: FloatArray, spans: Sequence[tuple[int, int]], objective: Objective
    ) -> Prefix:
        """Slots alone.

        Args:
            slots_KD: Slots [K, D] of all spans, float32; K may be 0.
            spans: (context tokens, slots) of each span, in order.
            objective: Objective token placed behind the slots.
        """
        parts = (SlotsPart(slots_KD=slots_KD),)
        return cls(parts=parts, spans=tuple(spans), objective=objective)

    @classmethod
    def of_memory(cls, memory: Memory, objective: Objective) -> Prefix:
        """All of a memory, neighbouring spans of one kind in one part."""
        return cls._of_spans(memory, 0, len(memory.spans), objective)

    @classmethod
    def of_span(cls, memory: Memory, index: int, objective: Objective) -> Prefix:
        """One span of a memory."""
        return cls._of_spans(memory, index, index + 1, objective)

    @classmethod
    def _of_spans(cls, memory: Memory, first: int, end: int, objective: Objective) -> Prefix:
        spans = memory.spans[first:end]
        parts: list[PrefixPart] = []
        for kind, group in itertools.groupby(spans, key=lambda span: span.kind):
            run = list(group)
            rows = slice(run[0].slot_start, run[-1].slot_end)
            verbatim_rows = slice(run[0].verbatim_start, run[-1].verbatim_end)
            parts.append(_part(kind, memory.slots[rows], memory.verbatim_ids[verbatim_rows]))
        return cls(
            parts=tuple(parts),
            spans=tuple((span.tokens, span.positions) for span in spans),
            objective=objective,
        )


class _PartBytes:
    """The bytes of a part, behind the name of its kind."""

    def read_slots(self, slots_KD: FloatArray) -> tuple[str, bytes]:
        return "slots", np.ascontiguousarray(slots_KD, dtype="<f4").tobytes()

    def read_tokens(self, token_ids: TokenIds) -> tuple[str, bytes]:
        return "tokens", np.ascontiguousarray(token_ids, dtype="<i8").tobytes()


def _part(kind: SpanKind, slots_KD: FloatArray, token_ids: TokenIds) -> PrefixPart:
    return SlotsPart(slots_KD=slots_KD) if kind == "slots" else TokensPart(token_ids=token_ids)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer to write.

    Attributes:
        prefix: The memory that is read first, or None to read the prompt alone.
        prompt_ids: Rendered prompt.
    """

    prefix: Prefix | None
    prompt_ids: TokenIds


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Tokens written by greedy decoding.

    Attributes:
        token_ids: The ids, without the stop token.
        stopped: Whether a stop token ended it (else the limit did).
        positions: Decoder positions read before the first token.
        first_token_seconds: Wall time to the first token; of answers that were written
            together, the time from the start of their batch.
        seconds: Wall time in all, from the same start.
    """

    token_ids: tuple[int, ...]
    stopped: bool
    positions: int
    first_token_seconds: float
    seconds: float


class Runtime(Protocol):
    """Runs the frozen decoder."""

    @property
    def name(self) -> str:
        """What runs it and in what precision, for people: ``torch bfloat16``."""
        ...

    @property
    def slot_dtypes(self) -> tuple[SlotDtype, ...]:
        """Precisions of stored slots that it reads, its own first."""
        ...

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the decoder can read."""
        ...

    @property
    def context_window(self) -> int:
        """Most decoder positions, prompt and answer together."""
        ...

    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions."""
        ...

    def positions(self, prefix: Prefix | None, prompt_length: int) -> list[int]:
        """Position of every decoder input of ``[front ; memory ; objective ; prompt]``."""
        ...

    def batches(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Consecutive slices of spans that are written back together."""
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
        """Greedy decoding of one answer behind ``[memory ; objective ; prompt]``.

        What the answer before read is not read again as far as both begin alike: the
        memory, and in a conversation the turns so far.
        """
        ...

    def generate_many(
        self, requests: Sequence[Request], *, max_new_tokens: int, stop_ids: Sequence[int]
    ) -> list[Generated]:
        """Greedy decoding of many answers together, in the order of the requests.

        A memory that several requests share is read once.
        """
        ...

    def write_back(self, prefixes: Sequence[Prefix]) -> list[tuple[int, ...]]:
        """Greedy reconstruction of what each prefix stands for, each to its own length."""
        ...

    @property
    def kv_format(self) -> str:
        """What decides the bytes of a key-value cache beside memory and weights."""
        ...

    def save_kv(self, prefix: Prefix) -> bytes:
        """Read a memory, unless it was just read, and return its key-value cache."""
        ...

    def load_kv(self, prefix: Prefix, data: bytes) -> None:
        """Take a key-value cache from `save_kv` as that of a memory just read.

        Raises:
            InputError: If the bytes are no such cache.
        """
        ...


def input_positions(config: ModelConfig, prefix: Prefix | None, prompt_length: int) -> list[int]:
    """Position of every decoder input of ``[front ; memory ; objective ; prompt]``.

    Args:
        config: Architecture of the adapter.
        prefix: The memory, or None for the prompt alone.
        prompt_length: Tokens of the prompt.
    """
    if prefix is None:
        return list(range(prompt_length))
    prompt = config.objective_tokens + prompt_length
    return decoder_positions(config.layout, prefix.spans, prompt, front=config.front)


def require_consecutive(config: ModelConfig, engine: str) -> None:
    """Refuse an adapter that leaves gaps between decoder positions.

    Args:
        config: Architecture of the adapter.
        engine: Name of the engine that counts positions itself, for the message.

    Raises:
        InputError: If it does.
    """
    if config.layout == "uniform":
        raise InputError(
            f"{engine} cannot read the memories of this adapter.",
            got="layout uniform: decoder positions with gaps",
            expected="consecutive positions (layout default or uniform-encoder)",
            fix="Use --runtime torch.",
        )


def kv_bytes(layers: int, kv_heads: int, head_size: int, *, element: int) -> int:
    """Bytes of key-value cache a position: a key and a value of every head of every layer.

    Source: the shapes of `transformers.DynamicCache`, ``[rows, kv heads, positions, head]``.

    Args:
        layers: Layers of the decoder.
        kv_heads: Key-value heads of each.
        head_size: Width of a head.
        element: Bytes of one number.
    """
    return 2 * layers * kv_heads * head_size * element
