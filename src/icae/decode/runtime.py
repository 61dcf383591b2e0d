"""What a runtime does: run the frozen decoder behind a memory or behind plain tokens."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing

import numpy as np

from icae.config import ModelConfig
from icae.config.types import Objective, TokenIds
from icae.decode.batching import Step, row_batches, span_batches
from icae.decode.prefix import Generated, Prefix, Request, input_positions
from icae.errors import IncompatibleMemoryError, InputError
from icae.memory import KeyValueSlots, Memory, Verbatim
from icae.memory.payload import ReadablePayload
from icae.memory.provenance import StoredDtype


class Runtime(ABC):
    """Runs the frozen decoder. A subclass writes the tokens; the rest is the same for all.

    Attributes:
        config: Architecture of the adapter.
        name: What runs it and in what precision, for people: ``torch bfloat16``.
        slot_dtypes: How slots may be stored that it reads, its own first.
        vocabulary: Number of token ids that the decoder can read.
        context_window: Most decoder positions, prompt and answer together.
        kv_format: What decides the bytes of a key-value cache beside memory and weights.
        lead_slots: Learned slots that the adapter places before a memory, or None.
        span_tokens: Tokens of the spans that are written back between two reports of progress.
    """

    config: ModelConfig
    name: str
    slot_dtypes: tuple[StoredDtype, ...]
    vocabulary: int
    context_window: int
    kv_format: str
    lead_slots: KeyValueSlots | None = None
    span_tokens = 2048

    @abstractmethod
    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions."""

    @abstractmethod
    def tokens(
        self, request: Request, limit: int, stop_ids: Collection[int]
    ) -> Generator[int, None, None]:
        """The tokens of one answer, `limit` of them; whoever takes them ends it at a stop token.

        What the answer before read is not read again as far as both begin alike: the
        memory, and in a conversation the turns so far.
        """

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

        Args:
            prefix: The memory, or None to read the prompt alone.
            prompt_ids: Rendered prompt.
            max_new_tokens: Most tokens written.
            stop_ids: Tokens that end the answer.
            on_token: Called with each token as it comes; what it raises ends the answer.
        """
        made = Generated(positions=len(self.positions(prefix, len(prompt_ids))))
        request = Request(prefix=prefix, prompt_ids=prompt_ids)
        with closing(self.tokens(request, max_new_tokens, stop_ids)) as tokens:
            for token in tokens:
                made.take(token, stop_ids)
                if made.stopped:
                    break
                if on_token is not None:
                    on_token(token)
        return made

    def generate_rows(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: Sequence[int]
    ) -> list[Generated]:
        """Greedy decoding of many answers together, each up to its own limit.

        A memory that several requests share is read once.

        Returns:
            The answers, in the order of the requests.
        """
        read = [len(self.positions(r.prefix, len(r.prompt_ids))) for r in requests]
        sizes = [own + limit for own, limit in zip(read, limits, strict=True)]
        made: dict[int, Generated] = {}
        for members in row_batches(requests, sizes, pads=self.may_pad(max(sizes, default=0))):
            begin = time.perf_counter()
            made |= {i: Generated(positions=read[i], begin=begin) for i in members}
            asked, most = [requests[i] for i in members], [limits[i] for i in members]
            for step in self.steps(asked, most, frozenset(stop_ids)):
                for row, token in step.items():
                    made[members[row]].take(token, stop_ids)
        return [made[i] for i in range(len(requests))]

    def steps(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: Collection[int]
    ) -> Iterator[Step]:
        """The tokens of a batch of answers, each a row by its index: here one after another."""
        for row, (request, limit) in enumerate(zip(requests, limits, strict=True)):
            with closing(self.tokens(request, limit, stop_ids)) as tokens:
                for token in tokens:
                    yield {row: token}
                    if token in stop_ids:
                        break

    def generate_many(
        self, requests: Sequence[Request], *, max_new_tokens: int, stop_ids: Sequence[int]
    ) -> list[Generated]:
        """`generate_rows` with one limit for all answers."""
        return self.generate_rows(requests, [max_new_tokens] * len(requests), stop_ids)

    def write_back(self, prefixes: Sequence[Prefix]) -> list[tuple[int, ...]]:
        """Greedy reconstruction of what each prefix stands for, each to its own length."""
        nothing = np.zeros(0, dtype=np.int64)
        requests = [Request(prefix=prefix, prompt_ids=nothing) for prefix in prefixes]
        limits = [sum(tokens for tokens, _ in prefix.spans) for prefix in prefixes]
        return [made.token_ids for made in self.generate_rows(requests, limits, ())]

    def may_pad(self, longest: int) -> bool:
        """Whether rows of different lengths, of so many places at most, may share a batch."""
        return True

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

    def room(self, request: Request) -> int:
        """Tokens that an answer may have; below 0 where not even what is read before it fits."""
        read = self.positions(request.prefix, len(request.prompt_ids))[-1] + 1
        return self.context_window - read

    def batches(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Consecutive slices of spans that are written back together."""
        return span_batches(lengths, bound=self.span_tokens)


def require_consecutive(config: ModelConfig, engine: str) -> None:
    """Refuse an adapter that leaves gaps between positions, which an engine counts itself.

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
    """Bytes of key-value cache a position: numbers of `element` bytes, keys and values.

    Source: the shapes of `transformers.DynamicCache`, ``[rows, kv heads, positions, head]``.
    """
    return 2 * layers * kv_heads * head_size * element
