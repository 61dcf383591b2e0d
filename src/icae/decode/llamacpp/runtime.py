"""The llama.cpp runtime: greedy decoding behind a memory that is read as embeddings.

The weights are the base model's in a GGUF file; slots and objective vectors go in as input
embeddings, prompts as tokens. Sequence 0 keeps what the last answer read, so that neither a
memory nor a conversation is read twice; a batch of answers shares each memory's cache.

Shape legend: S decoder inputs, K slots, D hidden size.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from icae.config import ModelConfig
from icae.config.types import FloatArray, Objective, TokenIds
from icae.decode.batching import RowClock, row_batches
from icae.decode.llamacpp.context import LlamaContext, LlamaModel, Next, Sharing
from icae.decode.llamacpp.forms import CacheEntry, KeyValueForm, LlamaForm, Run, SlotForm
from icae.decode.llamacpp.weights import GgufDtype
from icae.decode.prefix import Generated, Prefix, ReadSoFar, Request
from icae.decode.runtime import Runtime, kv_bytes, require_consecutive
from icae.errors import InputError
from icae.memory.provenance import StoredDtype

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
        self._context: LlamaContext | None = None
        self._last: ReadSoFar | None = None

    @property
    def name(self) -> str:
        """What runs the decoder and in what precision."""
        return f"llamacpp {self.dtype}"

    @property
    def slot_dtypes(self) -> tuple[StoredDtype, ...]:
        """Embeddings of either precision go in as float32."""
        return self.form.slot_dtypes

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the decoder can read."""
        return self.model.vocabulary

    @property
    def context_window(self) -> int:
        """Most decoder positions, prompt and answer together."""
        return self.model.window

    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions."""
        shape = self.model.cache
        element = np.dtype(KV_DTYPES[self.dtype]).itemsize
        return positions * kv_bytes(shape.layers, shape.heads, shape.width, element=element)

    def generate(
        self,
        prefix: Prefix | None,
        prompt_ids: TokenIds,
        *,
        max_new_tokens: int,
        stop_ids: Sequence[int],
        on_token: Callable[[int], None] | None = None,
    ) -> Generated:
        """Greedy decoding of one answer; see `Runtime.generate`."""
        clock = RowClock(begin=time.perf_counter())
        read = ReadSoFar.of(self.config, prefix, prompt_ids)
        inputs = len(read)
        context = self._room(inputs + max_new_tokens, sequences=1)
        token = self._read_on(context, self.form.runs(prefix, prompt_ids), read)
        for position in range(inputs, inputs + max_new_tokens):
            clock.take(token, stop_ids)
            if clock.stopped:
                break
            if on_token is not None:
                on_token(token)
            if position + 1 < inputs + max_new_tokens:
                self._last = None  # nothing describes the cache while it is read into
                (following,) = context.step([Next(sequence=0, position=position, token=token)])
                read.add(token)
                self._last, token = read, following
        return clock.generated(positions=inputs)

    @property
    def kv_format(self) -> str:
        """What decides the bytes of a key-value cache beside memory and weights."""
        version = self.model.api.__version__
        return f"llama-cpp-python {version} {self.dtype} {KV_DTYPES[self.dtype]} plain"

    def save_kv(self, prefix: Prefix) -> bytes:
        """Read a memory, unless it was just read, and return its key-value cache."""
        read = ReadSoFar.of(self.config, prefix)
        context = self._room(len(read), sequences=1)
        if self._last is None or self._last.shared(read) < len(read):
            self._read_on(context, self.form.runs(prefix, np.zeros(0, dtype=np.int64)), read)
        context.forget(0, first=len(read))
        self._last = read
        return context.save(0).tobytes()

    def load_kv(self, prefix: Prefix, data: bytes) -> None:
        """Take a key-value cache from `save_kv` as that of a memory just read.

        Raises:
            InputError: If the bytes are no such cache.
        """
        read = ReadSoFar.of(self.config, prefix)
        context = self._room(len(read) + GROWTH, sequences=1)
        self._last = None
        context.load(0, np.frombuffer(data, dtype=np.uint8))
        if context.last_position(0) != len(read) - 1:
            found = context.last_position(0) + 1
            context.forget(0)
            raise InputError(
                "A key-value cache does not fit the memory.",
                got=f"{found} decoder positions",
                expected=str(len(read)),
            )
        self._last = read

    def _read_on(self, context: LlamaContext, runs: Sequence[Run], read: ReadSoFar) -> int:
        """Read into sequence 0 what it does not hold yet; the most likely next token."""
        # At least one input has to be read, for the logits of the first token.
        start = 0 if self._last is None else min(self._last.shared(read), len(read) - 1)
        self._last = None
        context.forget(0, first=start)
        token = read_runs(context, runs, start, sequence=0)
        self._last = read
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
            kept = context.save(0) if self._last is not None else None
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

    def generate_rows(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: Sequence[int]
    ) -> list[Generated]:
        """Greedy decoding of many answers together; see `Runtime.generate_rows`."""
        positions = [len(self.positions(r.prefix, len(r.prompt_ids))) for r in requests]
        sizes = [own + limit for own, limit in zip(positions, limits, strict=True)]
        result: dict[int, Generated] = {}
        for members in row_batches(requests, sizes, pads=True):
            clocks = self._answer_batch(
                [requests[i] for i in members], [limits[i] for i in members], stop_ids
            )
            for i, clock in zip(members, clocks, strict=True):
                result[i] = clock.generated(positions=positions[i])
        return [result[i] for i in range(len(requests))]

    def _answer_batch(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: Sequence[int]
    ) -> list[RowClock]:
        """Answer one batch: a sequence for each row, and one for each shared memory."""
        clocks = [RowClock(begin=time.perf_counter()) for _ in requests]
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
        self._decode_rows(context, clocks, best, lengths, limits, stop_ids)
        for sequence in range(context.sequences):
            context.forget(sequence)
        return clocks

    def _batch_room(
        self, lengths: Sequence[int], limits: Sequence[int], *, shared: int
    ) -> LlamaContext:
        """A context for a batch: places apart, unless rows share a memory."""
        self._last = None
        sizes = [length + limit for length, limit in zip(lengths, limits, strict=True)]
        if shared:
            return self._room(sum(sizes), sequences=len(sizes) + shared)
        each = -(-max(sizes) // GROWTH) * GROWTH
        return self._room(each * len(sizes), sequences=len(sizes), sharing="apart")

    def _decode_rows(
        self,
        context: LlamaContext,
        clocks: Sequence[RowClock],
        best: list[int],
        lengths: Sequence[int],
        limits: Sequence[int],
        stop_ids: Sequence[int],
    ) -> None:
        """Write the rows on until each has ended; one that ended is not computed any more."""
        active = [row for row, limit in enumerate(limits) if limit > 0]
        taken = [0] * len(clocks)
        while active:
            for row in active:
                clocks[row].take(best[row], stop_ids)
                taken[row] += 1
            active = [r for r in active if not clocks[r].stopped and taken[r] < limits[r]]
            steps = [
                Next(sequence=r, position=lengths[r] + taken[r] - 1, token=best[r]) for r in active
            ]
            for row, token in zip(active, context.step(steps) if steps else (), strict=True):
                best[row] = token


def read_runs(
    context: LlamaContext,
    runs: Sequence[Run],
    start: int,
    *,
    sequence: int,
    end: int | None = None,
) -> int:
    """Read decoder inputs into a sequence, at the positions 0, 1, 2, ...

    Args:
        context: Where to.
        runs: All decoder inputs of the sequence.
        start: The first that the sequence does not hold yet.
        sequence: The sequence.
        end: One past the last to read, or None for all.

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
