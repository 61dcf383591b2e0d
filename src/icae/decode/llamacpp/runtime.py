"""The llama.cpp runtime: greedy decoding behind a memory that is read as embeddings.

The weights are the base model's in a GGUF file; slots and objective vectors go in as input
embeddings, prompts as tokens. Sequence 0 keeps what the last answer read, so that neither a
memory nor a conversation is read twice; a batch of answers shares each memory's cache.

Shape legend: S decoder inputs, K slots, D hidden size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence

import numpy as np

from icae.config import ModelConfig
from icae.config.types import FloatArray, Objective
from icae.decode.batching import Step
from icae.decode.llamacpp.context import LlamaContext, LlamaModel, Sharing
from icae.decode.llamacpp.forms import CacheEntry, KeyValueForm, LlamaForm, Run, SlotForm
from icae.decode.llamacpp.weights import GgufDtype
from icae.decode.prefix import Prefix, ReadSoFar, Request
from icae.decode.runtime import Runtime, kv_bytes, require_consecutive
from icae.errors import InputError

GROWTH = 256
"""Places by which the cache grows."""

KV_DTYPES: Mapping[GgufDtype, str] = {"bfloat16": "float16", "float32": "float32"}
"""Precision of the cache for that of the weights."""


class LlamaCppRuntime(Runtime):
    """The frozen decoder in llama.cpp.

    Args:
        model: Its weights.
        config: Architecture of the adapter.
        objectives: Vectors [M, D] of each objective, float32.
        dtype: Precision of the weights.
        entry: How memories of keys and values enter the cache, where they are made of these.

    Raises:
        InputError: If the adapter places slots where llama.cpp cannot.
    """

    def __init__(
        self,
        model: LlamaModel,
        config: ModelConfig,
        objectives: Mapping[Objective, FloatArray],
        *,
        dtype: GgufDtype = "bfloat16",
        entry: CacheEntry | None = None,
    ) -> None:
        self.form: LlamaForm
        if entry is None:
            require_consecutive(config, "llama.cpp")
            self.form = SlotForm(config, objectives)
        else:
            kv_dtype = KV_DTYPES[dtype]
            self.form = KeyValueForm(model, config, objectives, entry, kv_dtype=kv_dtype)
        self.model, self.config, self.dtype = model, config, dtype
        self.name = f"llamacpp {dtype}"
        self.slot_dtypes = self.form.slot_dtypes
        self.vocabulary, self.context_window = model.vocabulary, model.window
        version = model.api.__version__
        self.kv_format = f"llama-cpp-python {version} {dtype} {KV_DTYPES[dtype]} plain"
        self._context: LlamaContext | None = None
        self.last: ReadSoFar | None = None

    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions."""
        shape = self.model.cache
        element = np.dtype(KV_DTYPES[self.dtype]).itemsize
        return positions * kv_bytes(shape.layers, shape.heads, shape.width, element=element)

    def tokens(
        self, request: Request, limit: int, stop_ids: Collection[int]
    ) -> Generator[int, None, None]:
        """The tokens of one answer; see `Runtime.tokens`."""
        read = ReadSoFar.of(self.config, request.prefix, request.prompt_ids)
        inputs = len(read)
        context = self._room(inputs + limit, sequences=1)
        token = self._read_on(context, self.form.runs(request.prefix, request.prompt_ids), read)
        for position in range(inputs, inputs + limit):
            yield token
            if position + 1 < inputs + limit:
                self.last = None  # nothing describes the cache while it is read into
                (following,) = context.step([0], [position], [token])
                read.add(token)
                self.last, token = read, following

    def save_kv(self, prefix: Prefix) -> bytes:
        """Read a memory, unless it was just read, and return its key-value cache."""
        read = ReadSoFar.of(self.config, prefix)
        context = self._room(len(read), sequences=1)
        if self.last is None or self.last.shared(read) < len(read):
            self._read_on(context, self.form.runs(prefix, np.zeros(0, dtype=np.int64)), read)
        context.forget(0, first=len(read))
        self.last = read
        return context.save(0).tobytes()

    def load_kv(self, prefix: Prefix, data: bytes) -> None:
        """Take a key-value cache from `save_kv` as that of a memory just read.

        Raises:
            InputError: If the bytes are no such cache.
        """
        read = ReadSoFar.of(self.config, prefix)
        context = self._room(len(read) + GROWTH, sequences=1)
        self.last = None
        context.load(0, np.frombuffer(data, dtype=np.uint8))
        if context.last_position(0) != len(read) - 1:
            found = context.last_position(0) + 1
            context.forget(0)
            raise InputError(
                "A key-value cache does not fit the memory.",
                got=f"{found} decoder positions",
                expected=str(len(read)),
            )
        self.last = read

    def _read_on(self, context: LlamaContext, runs: Sequence[Run], read: ReadSoFar) -> int:
        """Read into sequence 0 what it does not hold yet; the most likely next token."""
        # At least one input has to be read, for the logits of the first token.
        start = 0 if self.last is None else min(self.last.shared(read), len(read) - 1)
        self.last = None
        context.forget(0, first=start)
        token = read_runs(context, runs, start, sequence=0)
        self.last = read
        return token

    def _room(self, places: int, *, sequences: int, sharing: Sharing = "unified") -> LlamaContext:
        """A context with room for so much; one that grows keeps what sequence 0 has read."""
        context = self._context
        if (
            context
            and context.places >= places
            and context.sequences >= sequences
            and (context.sequences == 1) == (sequences == 1)
            and context.sharing == sharing
        ):
            return context
        kept = None
        if context is not None:
            kept = context.save(0) if self.last is not None else None
            context.close()
        self._context = LlamaContext(
            self.model,
            places=-(-places // GROWTH) * GROWTH,
            sequences=sequences,
            kv_dtype=KV_DTYPES[self.dtype],
            sharing=sharing,
        )
        if kept is not None:
            self._context.load(0, kept)
        return self._context

    def steps(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: Collection[int]
    ) -> Iterator[Step]:
        """The tokens of a batch: a sequence for each row, and one for each shared memory."""
        uses = Counter(r.prefix.digest for r in requests if r.prefix is not None)
        several = [digest for digest, count in uses.items() if count > 1]
        shared = {digest: len(requests) + i for i, digest in enumerate(several)}
        lengths = [len(self.positions(r.prefix, len(r.prompt_ids))) for r in requests]
        context = self._batch_room(lengths, limits, shared=len(shared))
        for sequence in range(context.sequences):
            context.forget(sequence)
        held: dict[str, int] = {}
        best = []
        for row, request in enumerate(requests):
            runs, start = self.form.runs(request.prefix, request.prompt_ids), 0
            if request.prefix is not None and request.prefix.digest in shared:
                source = shared[request.prefix.digest]
                if request.prefix.digest not in held:
                    # The last objective vector is read with the prompt, which may be empty.
                    end = lengths[row] - len(request.prompt_ids) - 1
                    read_runs(context, runs, 0, sequence=source, end=end)
                    held[request.prefix.digest] = end
                context.share(source, row)
                start = held[request.prefix.digest]
            best.append(read_runs(context, runs, start, sequence=row))
        active, taken = [row for row, limit in enumerate(limits) if limit > 0], 0
        while active:
            yield {row: best[row] for row in active}
            taken += 1
            active = [r for r in active if best[r] not in stop_ids and taken < limits[r]]
            if active:
                places = [lengths[row] + taken - 1 for row in active]
                following = context.step(active, places, [best[row] for row in active])
                for row, token in zip(active, following, strict=True):
                    best[row] = token
        for sequence in range(context.sequences):
            context.forget(sequence)

    def _batch_room(
        self, lengths: Sequence[int], limits: Sequence[int], *, shared: int
    ) -> LlamaContext:
        """A context for a batch: places apart, unless rows share a memory."""
        self.last = None
        sizes = [length + limit for length, limit in zip(lengths, limits, strict=True)]
        if shared:
            return self._room(sum(sizes), sequences=len(sizes) + shared)
        each = -(-max(sizes) // GROWTH) * GROWTH
        return self._room(each * len(sizes), sequences=len(sizes), sharing="apart")


def read_runs(
    context: LlamaContext,
    runs: Sequence[Run],
    start: int,
    *,
    sequence: int,
    end: int | None = None,
) -> int:
    """Read the inputs ``start..end`` of all that a sequence gets, at the positions 0, 1, 2, ...

    Returns:
        The most likely next token.
    """
    end = sum(len(run.inputs) for run in runs) if end is None else end
    token, first = -1, 0
    for run in runs:
        begin, stop = max(start, first), min(end, first + len(run.inputs))
        if begin < stop:
            part = run.inputs[begin - first : stop - first]
            token = run.read(context, part, start=begin, sequence=sequence)
        first += len(run.inputs)
    return token
