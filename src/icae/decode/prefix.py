"""What the decoder reads before and in an answer: memories as prefixes, prompts, what was read.

Two texts share a key-value cache as far as their decoder inputs are the same at the same
positions: the memory of the question before, the turns of a conversation, or the documents
of a memory to which older turns were added.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from icae.config import ModelConfig
from icae.config.types import FloatArray, Objective, TokenIds
from icae.memory import KeyValueSlots, Memory
from icae.memory.forms import FORMS
from icae.memory.payload import ReadablePayload
from icae.model.positions import decoder_positions, document_places, key_value_positions


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """What the decoder reads before the prompt: a memory.

    Attributes:
        parts: Slots (of either form) and verbatim tokens, in order.
        spans: (context tokens, decoder positions) of each span, in order.
        objective: Objective token placed behind them.
    """

    parts: tuple[ReadablePayload, ...]
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
    def of_payload(cls, payload: ReadablePayload, *, tokens: int, objective: Objective) -> Prefix:
        """What stands for one span of so many tokens."""
        return cls(parts=(payload,), spans=((tokens, payload.positions),), objective=objective)

    @classmethod
    def of_memory(
        cls, memory: Memory, objective: Objective, *, spans: slice = slice(None)
    ) -> Prefix:
        """Spans of a memory, neighbouring ones of one kind in one part."""
        own = memory.spans[spans]
        return cls(
            parts=tuple(
                FORMS[kind].gather((span.payload for span in run), memory.provenance)
                for kind, run in itertools.groupby(own, key=lambda span: span.kind)
            ),
            spans=tuple((span.tokens, span.positions) for span in own),
            objective=objective,
        )

    def behind(
        self, lead: Sequence[ReadablePayload], follow: Sequence[ReadablePayload] = ()
    ) -> Prefix:
        """The same with parts that stand for themselves before it, and others after it."""
        before, after = (tuple((p.positions, p.positions) for p in own) for own in (lead, follow))
        return replace(
            self, parts=(*lead, *self.parts, *follow), spans=(*before, *self.spans, *after)
        )


class _PartBytes:
    """The bytes of a part, behind the name of its form."""

    def read_slots(self, slots_KD: FloatArray) -> tuple[str, bytes]:
        return "slots", np.ascontiguousarray(slots_KD, dtype="<f4").tobytes()

    def read_tokens(self, token_ids: TokenIds) -> tuple[str, bytes]:
        return "tokens", np.ascontiguousarray(token_ids, dtype="<i8").tobytes()

    def read_key_values(self, slots: KeyValueSlots) -> tuple[str, bytes]:
        return "key-values", "".join(run.digest for run in slots.runs).encode()


@dataclass(frozen=True, kw_only=True)
class Request:
    """One answer to write.

    Attributes:
        prefix: The memory that is read first, or None.
        prompt_ids: The rendered prompt.
        owner: Who may go on from what was read for it; None: it is not kept.
    """

    prefix: Prefix | None
    prompt_ids: TokenIds
    owner: str | None = None


@dataclass(kw_only=True)
class Generated:
    """Tokens that greedy decoding writes for one answer, and when they came.

    Attributes:
        positions: Decoder positions read before the first token.
        begin: When the answer, or its batch, began (`time.perf_counter`).
        token_ids: The ids so far, without the stop token.
        stopped: Whether a stop token ended it (else the limit did).
        first_token_seconds: Wall time from `begin` to the first token.
        seconds: Wall time from `begin` to the last one.
    """

    positions: int
    begin: float = field(default_factory=time.perf_counter)
    token_ids: tuple[int, ...] = ()
    stopped: bool = False
    first_token_seconds: float = 0.0
    seconds: float = 0.0

    def take(self, token: int, stop_ids: Collection[int]) -> None:
        """Take the next token."""
        self.seconds = time.perf_counter() - self.begin
        self.first_token_seconds = self.first_token_seconds or self.seconds
        if token in stop_ids:
            self.stopped = True
        else:
            self.token_ids += (token,)


def common_length(first: TokenIds, second: TokenIds) -> int:
    """How many token ids two texts have in common at their beginnings."""
    size = min(len(first), len(second))
    differing = np.flatnonzero(first[:size] != second[:size])
    return int(differing[0]) if len(differing) else size


def input_positions(config: ModelConfig, prefix: Prefix | None, prompt_length: int) -> list[int]:
    """Position of every decoder input of ``[front ; memory ; objective ; prompt]``."""
    if prefix is None:
        return list(range(prompt_length))
    if config.memory == "key-values":
        return key_value_positions(
            prefix.objective,
            document_places(prefix.spans),
            prompt_length,
            front=config.front,
            behind=config.objective_tokens,
        )
    prompt = config.behind(prefix.objective) + prompt_length
    return decoder_positions(config.layout, prefix.spans, prompt, front=config.front)


@dataclass(frozen=True, kw_only=True)
class ReadSoFar:
    """What was read into a cache.

    Attributes:
        keys: What stands for each decoder input: the id of a token, the digest of a slot or that
            of several and its place, or the name of an objective vector.
        positions: Its position.
    """

    keys: list[Hashable]
    positions: list[int]

    @classmethod
    def of(
        cls, config: ModelConfig, prefix: Prefix | None, prompt_ids: Sequence[int] | TokenIds = ()
    ) -> ReadSoFar:
        """What is read when all of a memory and a prompt is."""
        keys: list[Hashable] = []
        if prefix is not None:
            marker = [(prefix.objective, i) for i in range(config.objective_tokens)]
            keys += marker[: config.front]
            for part in prefix.parts:
                keys += part.read_by(_Keys())
            keys += marker[: config.behind(prefix.objective)]
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
        return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]

    def read_tokens(self, token_ids: TokenIds) -> list[Hashable]:
        return [int(i) for i in token_ids]

    def read_key_values(self, slots: KeyValueSlots) -> list[Hashable]:
        return [(run.digest, i) for run in slots.runs for i in range(len(run))]
