"""The vLLM runtime: greedy decoding in a vLLM server behind a memory sent as prompt embeds.

Nothing of an answer is kept here: the server keeps the key-value cache of what it read
(prefix caching), batches requests as they come, and any number of threads may ask.

Shape legend: S decoder inputs, K slots, N tokens, D hidden size.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from icae.config import ModelConfig
from icae.config.types import FloatArray, Objective, TokenIds
from icae.decode.checkpoint import BaseFolder
from icae.decode.prefix import Generated, Prefix, Request
from icae.decode.runtime import Runtime, kv_bytes, other_form, require_consecutive
from icae.decode.vllm.base_model import choose_model, input_embeddings, require_same_embeddings
from icae.decode.vllm.client import VllmClient, embeds_prompt
from icae.errors import IncompatibleMemoryError, InputError
from icae.memory import KeyValueSlots
from icae.memory.provenance import SlotDtype

IN_FLIGHT = 32
"""Most requests of `generate_rows` at the server at a time."""

BYTES: Mapping[SlotDtype, int] = {"bfloat16": 2, "float32": 4}


class VllmRuntime(Runtime):
    """The frozen decoder in a vLLM server.

    A server shares the cache of equal prompts, and how fast an answer comes tells whether
    its prompt was read before. So every memory has a salt of its own, made from a secret: who
    does not have the secret cannot find out by asking which memories are in use.

    Args:
        client: The server; its address names the secret.
        folder: Files of the base model.
        config: Architecture of the adapter.
        objectives: Vectors [M, D] of each objective, float32.
        bases: Names of the base model.
        dtype: Precision in which embeds are sent; the server should compute in it.

    Raises:
        InputError: If the adapter places slots where vLLM cannot.
        ServiceError: If the server cannot be asked, or takes no embeds.
        BaseModelError: If it does not serve the base model.
    """

    kv_format = "vllm"  # the cache stays in the server

    def __init__(
        self,
        client: VllmClient,
        folder: BaseFolder,
        config: ModelConfig,
        objectives: Mapping[Objective, FloatArray],
        *,
        bases: Sequence[str],
        dtype: SlotDtype = "bfloat16",
    ) -> None:
        require_consecutive(config, "vLLM")
        self.client, self.config, self.objectives, self.dtype = client, config, objectives, dtype
        self._sampling: Mapping[str, object] = {}
        self._base, self._secret = folder.config, client.address.secret
        self.embeddings_VD = input_embeddings(folder)
        self.model = choose_model(client.served(), wanted=client.address.model, bases=bases)
        self.name = f"vllm {dtype}"
        self.slot_dtypes = (dtype, "float32" if dtype == "bfloat16" else "bfloat16")
        self.vocabulary = self.embeddings_VD.shape[0]
        self.context_window = min(self.model.window, int(self._base["max_position_embeddings"]))
        require_same_embeddings(
            client, self.model.name, self.embeddings_VD, dtype=dtype, salt=self.salt(None)
        )

    def apart(self, owner: str, sampling: Mapping[str, object] | None = None) -> VllmRuntime:
        """The same runtime with salts of its own for one of several users.

        `sampling` are fields of vLLM's API that take the place of those of greedy decoding.
        """
        own = copy.copy(self)
        own._sampling = sampling or {}
        own._secret = _digest(self._secret, owner)
        return own

    def salt(self, prefix: Prefix | None) -> str:
        """The salt of a memory, or of prompts without one."""
        return _digest(self._secret, "" if prefix is None else prefix.digest)

    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions."""
        heads = self._base["num_attention_heads"]
        width = self._base.get("head_dim") or self._base["hidden_size"] // heads
        kept = self._base.get("num_key_value_heads") or heads
        layers, element = self._base["num_hidden_layers"], BYTES[self.dtype]
        return positions * kv_bytes(layers, kept, width, element=element)

    def tokens(
        self, request: Request, limit: int, stop_ids: Collection[int]
    ) -> Generator[int, None, None]:
        """The tokens of one answer, as they come; closing it ends it at the server, too.

        Raises:
            ServiceError: If the server cannot be asked, or refuses.
            IncompatibleMemoryError: If the slots are not of the base model's width.
        """
        inputs_SD = self._inputs(request.prefix, request.prompt_ids)
        if limit > 0:
            yield from self.client.write(
                self.model.name,
                embeds_prompt(inputs_SD, self.dtype),
                limit=limit,
                stop_ids=stop_ids,
                salt=self.salt(request.prefix),
                sampling=self._sampling,
            )

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
        width = self.embeddings_VD.shape[1]
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
        return self.embeddings_VD.rows(token_ids)

    def read_key_values(self, slots: KeyValueSlots) -> FloatArray:
        """Refuse keys and values."""
        raise other_form("key-values", "embeddings")


def _digest(secret: str, text: str) -> str:
    return hashlib.sha256(f"{len(secret)}:{secret}{text}".encode()).hexdigest()
