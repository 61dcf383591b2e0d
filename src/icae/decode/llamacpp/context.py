"""llama.cpp through the low-level calls of llama-cpp-python: embeddings in, tokens out.

Shape legend: S decoder inputs, D hidden size, V vocabulary.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icae.config.types import FloatArray, KeyValueShape, TokenIds
from icae.decode.llamacpp.state import Bytes, SequenceState, StateLayout
from icae.errors import BaseModelError, InputError, MissingDependencyError

BATCH = 512
"""Decoder inputs read in one pass."""

Sharing = Literal["unified", "apart"]
"""Whether sequences share the places of a cache or have their own."""

log = logging.getLogger(__name__)


def import_llama_cpp() -> ModuleType:
    """The package llama_cpp, its messages sent to `logging`.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        import llama_cpp
    except ImportError as error:
        raise MissingDependencyError(
            "The llama.cpp runtime is not installed.",
            got=str(error),
            expected="the package llama-cpp-python",
            fix="pip install 'icae[llamacpp]' (builds from source), or --runtime torch",
        ) from error
    llama_cpp.llama_log_set(_log_callback(llama_cpp), ctypes.c_void_p(0))
    return llama_cpp


@functools.cache  # ctypes keeps no reference to a callback itself
def _log_callback(llama_cpp: ModuleType) -> Any:
    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def write(level: int, text: bytes, user_data: Any) -> None:
        # ggml's levels: 3 is a warning, 4 an error; lower and 5 (goes on) are details.
        said = text.decode("utf-8", errors="replace").rstrip()
        log.log(logging.WARNING if level == 4 else logging.DEBUG, "%s", said)

    return write


def thread_count() -> int:
    """Threads to compute with: $OMP_NUM_THREADS, else the processors of this process."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LlamaModel:
    """Weights of a GGUF file, mapped into memory.

    Args:
        path: The file.

    Attributes:
        width: Hidden size D.
        vocabulary: Token ids V.
        window: Most decoder positions that it was trained for.
        cache: What a decoder position holds in the key-value cache.

    Raises:
        MissingDependencyError: If llama-cpp-python is not installed.
        BaseModelError: If the file cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self.api = import_llama_cpp()
        self.api.llama_backend_init()
        settings = self.api.llama_model_default_params()
        self.pointer = self.api.llama_model_load_from_file(str(path).encode(), settings)
        if not self.pointer:
            raise BaseModelError(
                "llama.cpp cannot load the base weights.",
                got=str(path),
                expected="a GGUF file",
                fix="Delete the file; it is written again at the next use.",
            )
        weakref.finalize(self, self.api.llama_model_free, self.pointer)
        self.width = int(self.api.llama_model_n_embd(self.pointer))
        self.window = int(self.api.llama_model_n_ctx_train(self.pointer))
        vocabulary = self.api.llama_model_get_vocab(self.pointer)
        self.vocabulary = int(self.api.llama_vocab_n_tokens(vocabulary))
        self.cache = KeyValueShape(
            layers=int(self.api.llama_model_n_layer(self.pointer)),
            heads=int(self.api.llama_model_n_head_kv(self.pointer)),
            width=self._head_width(),
        )

    def _head_width(self) -> int:
        """Width of one attention head: what the file says, else D / heads."""
        text = ctypes.create_string_buffer(64)
        keys = self.api.llama_model_meta_val_str(self.pointer, b"general.architecture", text, 64)
        if keys > 0:
            key = f"{text.value.decode()}.attention.key_length".encode()
            if self.api.llama_model_meta_val_str(self.pointer, key, text, 64) > 0:
                return int(text.value)
        return self.width // int(self.api.llama_model_n_head(self.pointer))


class LlamaContext:
    """A key-value cache of llama.cpp, and reading into it.

    Args:
        model: The weights.
        places: Decoder places that the cache holds, over all sequences.
        sequences: Most sequences.
        kv_dtype: ``float16`` or ``float32``.
        sharing: ``unified``: sequences share places, and each token looks over all of them;
            ``apart``: each has its own equal share of the places.

    Raises:
        InputError: If there is no memory for the cache.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        places: int,
        sequences: int,
        kv_dtype: str = "float16",
        sharing: Sharing = "unified",
    ) -> None:
        self.model, self.places, self.sequences = model, places, sequences
        self.sharing, self._item = sharing, np.dtype(kv_dtype)
        api = self.api = model.api
        settings = api.llama_context_default_params()
        settings.n_ctx = places
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_seq_max = sequences
        # One output a sequence: the logits of a whole batch would take most of the memory.
        settings.n_outputs_max = sequences
        settings.n_threads = settings.n_threads_batch = thread_count()
        settings.kv_unified = sharing == "unified"
        settings.no_perf = True
        # Flash attention skips the places of other sequences, and rounds to float16 on its way;
        # without it a CPU is exact, and faster for one sequence.
        exact = sequences == 1 or kv_dtype == "float32"
        if exact and not api.llama_supports_gpu_offload():
            settings.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        kinds = {"float16": api.GGML_TYPE_F16, "float32": api.GGML_TYPE_F32}
        settings.type_k = settings.type_v = self._kind = kinds[kv_dtype]
        self.pointer = api.llama_init_from_model(model.pointer, settings)
        if not self.pointer:
            raise InputError(
                "There is no memory for the key-value cache.",
                got=f"{places} decoder positions",
                fix="Use a higher ratio, fewer memories or a shorter answer.",
            )
        self._free = weakref.finalize(self, api.llama_free, self.pointer)
        self.memory = api.llama_get_memory(self.pointer)

    def close(self) -> None:
        """Free the cache."""
        self._free()

    def read_embeds(self, embeds_SD: FloatArray, *, start: int, sequence: int) -> int:
        """Read input embeddings [S, D], S >= 1, at consecutive positions.

        Args:
            embeds_SD: Decoder inputs.
            start: Position of the first.
            sequence: The sequence.

        Returns:
            The most likely next token.
        """
        return self._read("embd", np.ascontiguousarray(embeds_SD, np.float32), start, sequence)

    def read_tokens(self, token_ids: TokenIds, *, start: int, sequence: int) -> int:
        """Read tokens at consecutive positions; as `read_embeds`."""
        return self._read("token", np.ascontiguousarray(token_ids, np.int32), start, sequence)

    def _read(self, field: str, inputs: NDArray[Any], start: int, sequence: int) -> int:
        for at in range(0, len(inputs), BATCH):
            part = inputs[at : at + BATCH]
            where = np.arange(start + at, start + at + len(part), dtype=np.int32)
            owners = np.full(len(part), sequence, dtype=np.int32)
            self._decode(where, owners, wanted=[len(part) - 1], **{field: _pointer(part)})
        return self._best(len(part) - 1)

    def step(
        self, sequences: Sequence[int], positions: Sequence[int], tokens: Sequence[int]
    ) -> list[int]:
        """Read one token at a position of each of several sequences.

        Returns:
            The most likely next token of each.
        """
        self.read_rows(tokens, positions, sequences, wanted=range(len(tokens)))
        return [self._best(i) for i in range(len(tokens))]

    def read_rows(
        self,
        tokens: Sequence[int] | TokenIds,
        positions: Sequence[int] | TokenIds,
        sequences: Sequence[int] | TokenIds,
        *,
        wanted: Sequence[int],
    ) -> None:
        """Read up to `BATCH` tokens, each at a position of a sequence; `logits` at those wanted."""
        ids, where, owners = (
            np.array(given, dtype=np.int32) for given in (tokens, positions, sequences)
        )
        self._decode(where, owners, wanted=wanted, token=_pointer(ids))

    def forget(self, sequence: int, *, first: int = 0) -> None:
        """Drop what a sequence read from a position on."""
        self.api.llama_memory_seq_rm(self.memory, sequence, first, -1)

    def share(self, source: int, target: int, *, end: int = -1) -> None:
        """Let a sequence begin with what another one read, up to a position, without a copy."""
        self.api.llama_memory_seq_cp(self.memory, source, target, -1, end)

    def last_position(self, sequence: int) -> int:
        """Highest position that a sequence has read, or -1."""
        return int(self.api.llama_memory_seq_pos_max(self.memory, sequence))

    def save(self, sequence: int) -> Bytes:
        """What a sequence has read, as bytes."""
        data = np.empty(int(self.api.llama_state_seq_get_size(self.pointer, sequence)), np.uint8)
        used = self.api.llama_state_seq_get_data(self.pointer, _pointer(data), len(data), sequence)
        return data[: int(used)]

    def load(self, sequence: int, data: Bytes) -> None:
        """Put what `save` gave in place of what a sequence has read.

        Raises:
            InputError: If the bytes are no state of this model.
        """
        self.forget(sequence)
        if not self.api.llama_state_seq_set_data(self.pointer, _pointer(data), len(data), sequence):
            self.forget(sequence)
            raise InputError("A key-value cache does not fit the decoder.", got="refused bytes")

    def state(self, sequence: int) -> SequenceState:
        """What a sequence has read, at least one input.

        Raises:
            InputError: If the library keeps it in a layout that is not known.
        """
        shape = self.model.cache
        known = StateLayout(
            layers=shape.layers,
            channels=shape.heads * shape.width,
            item=self._item,
            kind=int(self._kind),
        )
        return SequenceState.read(self.save(sequence), known)

    def rounded(self, numbers: FloatArray) -> NDArray[Any]:
        """Numbers in the precision of the cache; too large ones become infinite."""
        numbers = np.ascontiguousarray(numbers)
        convert = getattr(self.api.llama_cpp._lib, "ggml_cpu_fp32_to_fp16", None)
        if convert is None or self._item != np.float16:
            return numbers.astype(self._item, copy=False)
        half = np.empty(numbers.shape, dtype=self._item)  # NumPy takes twenty times as long
        addresses = (ctypes.c_void_p(array.ctypes.data) for array in (numbers, half))
        convert(*addresses, ctypes.c_int64(numbers.size))
        return half

    def logits(self, index: int) -> FloatArray:
        """Logits [V] at a place of the last batch, or at its last output (-1), until the next."""
        found = self.api.llama_get_logits_ith(self.pointer, index)
        return np.ctypeslib.as_array(found, shape=(self.model.vocabulary,))

    def _best(self, index: int) -> int:
        """The most likely token at a place of the last batch."""
        return int(self.logits(index).argmax())

    def _decode(
        self,
        where: NDArray[np.int32],
        owners: NDArray[np.int32],
        *,
        wanted: Sequence[int],
        **inputs: Any,
    ) -> None:
        """One pass over a batch, outputs at the places wanted."""
        count = len(where)
        flags = np.zeros(count, dtype=np.int8)
        flags[list(wanted)] = 1
        ones = np.ones(count, dtype=np.int32)
        pointers = (ctypes.POINTER(ctypes.c_int32) * count)()
        step = owners.itemsize
        for i in range(count):
            address = owners.ctypes.data + i * step
            pointers[i] = ctypes.cast(address, ctypes.POINTER(ctypes.c_int32))
        batch = self.api.llama_batch(
            n_tokens=count,
            pos=_pointer(where),
            n_seq_id=_pointer(ones),
            seq_id=ctypes.cast(pointers, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=_pointer(flags),
            **inputs,
        )
        code = int(self.api.llama_decode(self.pointer, batch))
        if code != 0:
            raise InputError(
                "llama.cpp could not read on.",
                got=f"code {code}" + (" (the cache is full)" if code == 1 else ""),
                expected=f"at most {self.places} decoder positions",
            )


def _pointer(array: NDArray[Any]) -> Any:
    """A pointer to the numbers of an array, which has to outlive it."""
    kind: Any = np.ctypeslib.as_ctypes_type(array.dtype)
    return array.ctypes.data_as(ctypes.POINTER(kind))
