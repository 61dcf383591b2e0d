"""What a runtime does: run the frozen decoder behind a memory or behind plain tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from icae.config import ModelConfig
from icae.config.types import Objective, TokenIds
from icae.decode.batching import span_batches
from icae.decode.prefix import Generated, Prefix, Request, input_positions, writing_back
from icae.errors import IncompatibleMemoryError, InputError
from icae.memory import KeyValueSlots, Memory, Verbatim
from icae.memory.payload import ReadablePayload
from icae.memory.provenance import StoredDtype


class Runtime(ABC):
    """Runs the frozen decoder.

    A subclass says how one answer and how many are written; the rest is the same for all.

    Attributes:
        config: Architecture of the adapter.
        lead_slots: Learned slots that the adapter places before a memory, or None.
    """

    config: ModelConfig
    lead_slots: KeyValueSlots | None = None

    span_tokens = 2048
    """Tokens of the spans that are written back between two reports of progress."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What runs it and in what precision, for people: ``torch bfloat16``."""

    @property
    @abstractmethod
    def slot_dtypes(self) -> tuple[StoredDtype, ...]:
        """How slots may be stored that it reads, its own first."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Number of token ids that the decoder can read."""

    @property
    @abstractmethod
    def context_window(self) -> int:
        """Most decoder positions, prompt and answer together."""

    @abstractmethod
    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions."""

    @abstractmethod
    def generate(
        self,
        prefix: Prefix | None,
        prompt_ids: TokenIds,
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        on_token: Callable[[int], None] | None = None,
    ) -> Generated:
        """Greedy decoding of one answer behind ``[front ; memory ; objective ; prompt]``.

        What the answer before read is not read again as far as both begin alike: the
        memory, and in a conversation the turns so far.

        Args:
            prefix: The memory, or None to read the prompt alone.
            prompt_ids: Rendered prompt.
            max_new_tokens: Most tokens written.
            stop_ids: Tokens that end the answer.
            on_token: Called with each token as it comes; what it raises ends the answer.
        """

    @abstractmethod
    def generate_rows(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: Sequence[int]
    ) -> list[Generated]:
        """Greedy decoding of many answers together, each up to its own limit.

        A memory that several requests share is read once.

        Args:
            requests: What to answer.
            limits: Most tokens of each answer.
            stop_ids: Tokens that end an answer.

        Returns:
            The answers, in the order of the requests.
        """

    @property
    @abstractmethod
    def kv_format(self) -> str:
        """What decides the bytes of a key-value cache beside memory and weights."""

    @abstractmethod
    def save_kv(self, prefix: Prefix) -> bytes:
        """Read a memory, unless it was just read, and return its key-value cache.

        Raises:
            InputError: If the cache of this base model cannot be kept.
        """

    @abstractmethod
    def load_kv(self, prefix: Prefix, data: bytes) -> None:
        """Take a key-value cache from `save_kv` as that of a memory just read.

        Raises:
            InputError: If the bytes are no such cache.
        """

    def lead(self, objective: Objective) -> tuple[ReadablePayload, ...]:
        """What the adapter places before a memory: nothing where a text is written back."""
        slots = () if self.lead_slots is None or objective == "ae" else (self.lead_slots,)
        before = self.config.asking.before if objective == "ft" else ()
        tokens = (Verbatim(ids=np.array(before, dtype=np.int64)),) if before else ()
        return (*slots, *tokens)

    def asked(self, memory: Memory) -> Prefix:
        """What the decoder reads of a memory before a question."""
        return Prefix.of_memory(memory, "ft").behind(self.lead("ft"))

    def positions(self, prefix: Prefix | None, prompt_length: int) -> list[int]:
        """Position of every decoder input of ``[front ; memory ; objective ; prompt]``."""
        return input_positions(self.config, prefix, prompt_length)

    def batches(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Consecutive slices of spans that are written back together."""
        return span_batches(lengths, bound=self.span_tokens)

    def generate_many(
        self, requests: Sequence[Request], *, max_new_tokens: int, stop_ids: Sequence[int]
    ) -> list[Generated]:
        """`generate_rows` with one limit for all answers."""
        return self.generate_rows(requests, [max_new_tokens] * len(requests), stop_ids)

    def write_back(self, prefixes: Sequence[Prefix]) -> list[tuple[int, ...]]:
        """Greedy reconstruction of what each prefix stands for, each to its own length."""
        requests, limits = writing_back(prefixes)
        return [made.token_ids for made in self.generate_rows(requests, limits, ())]


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


def other_form(got: str, expected: str) -> IncompatibleMemoryError:
    """Why a memory of another form is not read."""
    return IncompatibleMemoryError(
        "The memory has another form than this decoder reads.",
        got=f"a memory of {got}",
        expected=f"a memory of {expected}",
        fix="Use the adapter that made it, or compress again.",
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
