"""The vLLM runtime: greedy decoding in a vLLM server behind a memory sent as prompt embeds.

Nothing of an answer is kept here: the server keeps the key-value cache of what it read
(prefix caching), batches requests as they come, and any number of threads may ask.
Shape legend: S decoder inputs, K slots, N tokens, D hidden size.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from icae.config import ModelConfig
from icae.config.types import FloatArray, Objective, TokenIds
from icae.decode.batching import RowClock
from icae.decode.checkpoint import BaseFolder
from icae.decode.prefix import Generated, Prefix, Request
from icae.decode.runtime import Runtime, kv_bytes, other_form, require_consecutive
from icae.decode.vllm.base_model import InputEmbeddings, choose_model, require_same_embeddings
from icae.decode.vllm.client import Order, ServedModel, VllmClient, embeds_prompt
from icae.errors import IncompatibleMemoryError, InputError
from icae.memory import KeyValueSlots
from icae.memory.provenance import SlotDtype, StoredDtype

IN_FLIGHT = 32
"""Most requests of `generate_many` at the server at a time."""

BYTES: Mapping[SlotDtype, int] = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True)
class VllmRuntime(Runtime):
    """The frozen decoder in a vLLM server.

    A server shares the cache of equal prompts, and how fast an answer comes tells whether
    its prompt was read before. So every memory has a salt of its own, made from a secret: who
    does not have the secret cannot find out by asking which memories are in use.

    Attributes:
        client: The server.
        model: The model there.
        config: Architecture of the adapter.
        base: Settings of the base model.
        embeddings: Its input embeddings.
        objectives: Vectors [M, D] of each objective, float32.
        dtype: Precision in which embeds are sent; the server should compute in it.
        secret: What the salts are made from.
    """

    client: VllmClient
    model: ServedModel
    config: ModelConfig
    base: Mapping[str, Any] = field(repr=False)
    embeddings: InputEmbeddings
    objectives: Mapping[Objective, FloatArray] = field(repr=False)
    dtype: SlotDtype = "bfloat16"
    secret: str = field(default="", repr=False)

    @classmethod
    def connect(
        cls,
        client: VllmClient,
        folder: BaseFolder,
        config: ModelConfig,
        objectives: Mapping[Objective, FloatArray],
        *,
        bases: Sequence[str],
        dtype: SlotDtype = "bfloat16",
    ) -> VllmRuntime:
        """Find the base model of an adapter in a server, and try it.

        Args:
            client: The server.
            folder: Files of the base model.
            config: Architecture of the adapter.
            objectives: Vectors [M, D] of each objective, float32.
            bases: Names of the base model.
            dtype: Precision in which embeds are sent.

        Raises:
            InputError: If the adapter places slots where vLLM cannot.
            ServiceError: If the server cannot be asked, or takes no embeds.
            BaseModelError: If it does not serve the base model.
        """
        require_consecutive(config, "vLLM")
        embeddings = InputEmbeddings.of(folder)
        model = choose_model(client.served(), wanted=client.address.model, bases=bases)
        runtime = cls(
            client=client,
            model=model,
            config=config,
            base=folder.config,
            embeddings=embeddings,
            objectives=objectives,
            dtype=dtype,
            secret=client.address.secret,
        )
        require_same_embeddings(
            client, model.name, embeddings, dtype=dtype, salt=runtime.salt(None)
        )
        return runtime

    def apart(self, owner: str) -> VllmRuntime:
        """The same runtime with salts of its own for one of several users.

        Args:
            owner: Who asks.
        """
        return replace(self, secret=_digest(self.secret, owner))

    def salt(self, prefix: Prefix | None) -> str:
        """The salt of a memory, or of prompts without one."""
        return _digest(self.secret, "" if prefix is None else prefix.digest)

    @property
    def name(self) -> str:
        """What runs the decoder and in what precision embeds go to it."""
        return f"vllm {self.dtype}"

    @property
    def slot_dtypes(self) -> tuple[StoredDtype, ...]:
        """Slots of either precision are sent in its own."""
        return (self.dtype, "float32" if self.dtype == "bfloat16" else "bfloat16")

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the decoder can read."""
        return self.embeddings.vocabulary

    @property
    def context_window(self) -> int:
        """Most decoder positions, prompt and answer together."""
        return min(self.model.window, int(self.base["max_position_embeddings"]))

    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions."""
        heads = self.base["num_attention_heads"]
        width = self.base.get("head_dim") or self.base["hidden_size"] // heads
        kept = self.base.get("num_key_value_heads") or heads
        layers, element = self.base["num_hidden_layers"], BYTES[self.dtype]
        return positions * kv_bytes(layers, kept, width, element=element)

    def generate(
        self,
        prefix: Prefix | None,
        prompt_ids: TokenIds,
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        on_token: Callable[[int], None] | None = None,
    ) -> Generated:
        """Greedy decoding of one answer; see `Runtime.generate`.

        Raises:
            ServiceError: If the server cannot be asked, or refuses.
            IncompatibleMemoryError: If the slots are not of the base model's width.
        """
        clock = RowClock(begin=time.perf_counter())
        inputs_SD = self._inputs(prefix, prompt_ids)
        if max_new_tokens > 0:
            order = Order(
                prompt=embeds_prompt(inputs_SD, self.dtype),
                max_new_tokens=max_new_tokens,
                stop_ids=tuple(stop_ids),
                salt=self.salt(prefix),
            )
            with closing(self.client.write(self.model.name, order)) as pieces:
                for piece in pieces:
                    for token in piece.token_ids:
                        clock.take(token, order.stop_ids)
                        if on_token is not None and not clock.stopped:
                            on_token(token)
                    clock.stopped = clock.stopped or piece.stopped
        return clock.generated(positions=len(inputs_SD))

    def generate_rows(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: Sequence[int]
    ) -> list[Generated]:
        """Greedy decoding of many answers, at the server together; see `generate`."""

        def write(request: Request, limit: int) -> Generated:
            return self.generate(
                request.prefix, request.prompt_ids, max_new_tokens=limit, stop_ids=stop_ids
            )

        workers = max(1, min(IN_FLIGHT, len(requests)))
        with ThreadPoolExecutor(workers, thread_name_prefix="vllm") as pool:
            return list(pool.map(write, requests, limits))

    @property
    def kv_format(self) -> str:
        """The cache stays in the server."""
        return "vllm"

    def save_kv(self, prefix: Prefix) -> bytes:
        """Not possible: the server keeps the cache.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "The key-value cache of a memory stays in the vLLM server.",
            fix="Leave --kv out: the server keeps what it read (prefix caching).",
        )

    def load_kv(self, prefix: Prefix, data: bytes) -> None:
        """Not possible: the server keeps the cache.

        Raises:
            InputError: Always.
        """
        raise InputError("A vLLM server takes no key-value cache.", fix="Leave --kv out.")

    def _inputs(self, prefix: Prefix | None, prompt_ids: TokenIds) -> FloatArray:
        """Decoder inputs ``[front ; memory ; objective ; prompt]``, [S, D]."""
        prompt = [self.read_tokens(prompt_ids)]
        if prefix is None:
            return np.concatenate(prompt)
        marker_MD = self.objectives[prefix.objective]
        parts = [part.read_by(self) for part in prefix.parts]
        behind_MD = marker_MD[-self.config.objective_tokens :]
        return np.concatenate([marker_MD[: self.config.front], *parts, behind_MD, *prompt])

    def read_slots(self, slots_KD: FloatArray) -> FloatArray:
        """Slots as decoder inputs, [K, D].

        Raises:
            IncompatibleMemoryError: If they are not of the base model's width.
        """
        width = self.embeddings.hidden_size
        if slots_KD.shape[1] != width:
            raise IncompatibleMemoryError(
                "These slots are not sent to the vLLM server.",
                got=f"slots {list(slots_KD.shape)}",
                expected=f"[slots, {width}]",
                fix="Compress the documents again with the adapter of this base model.",
            )
        return slots_KD

    def read_tokens(self, token_ids: TokenIds) -> FloatArray:
        """Token ids as decoder inputs, [N, D]."""
        return self.embeddings.rows(token_ids)

    def read_key_values(self, slots: KeyValueSlots) -> FloatArray:
        """Refuse keys and values."""
        raise other_form("key-values", "embeddings")


def _digest(secret: str, text: str) -> str:
    return hashlib.sha256(f"{len(secret)}:{secret}{text}".encode()).hexdigest()
