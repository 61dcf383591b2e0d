"""The torch runtime: encoding, verification and greedy decoding with transformers.

What differs between the forms of memory is in `icae.decode.torch_forms`.

Shape legend: R rows, S decoder places, D hidden size, V vocabulary.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from icae.config.types import TokenIds
from icae.decode.batching import Step, span_batches
from icae.decode.prefix import Prefix, ReadSoFar, Request
from icae.decode.runtime import Runtime
from icae.decode.torch_forms import embedded, form_of
from icae.decode.torch_kv import LastRead, keeps_all, kv_from_bytes, kv_to_bytes, stacks
from icae.decode.torch_rows import Row, greedy_rows, next_tokens
from icae.errors import InputError
from icae.memory import KeyValueSlots, TokenFidelity
from icae.memory.payload import ReadablePayload
from icae.memory.provenance import KEY_VALUE_DTYPES, StoredDtype
from icae.model.around import embed
from icae.model.cache_size import CacheSize
from icae.model.decoder import DecoderRow, KeyValues, label_logits, logits_beside
from icae.model.icae import IcaeModel
from icae.model.key_values import KeyValueModel
from icae.model.losses import TaskScore, score_task
from icae.model.objectives import DecoderTask, autoencoding
from icae.model.rotary import steady_positions


class TorchRuntime(Runtime):
    """Encoder and decoder of one loaded model.

    Args:
        model: The model with its adapter.
    """

    span_tokens = 512
    """Context tokens written back in one forward pass. Bounds memory: the logits of the
    verification take 8 bytes for each token and vocabulary entry."""

    encoded_tokens = 2048
    """Context tokens encoded in one forward pass, of which there are no logits."""

    def __init__(self, model: IcaeModel | KeyValueModel) -> None:
        self.model = model.eval()
        self.form = form_of(model)
        self.config = model.config
        decoder, place = model.decoder, model.device.type
        precision = str(model.dtype).removeprefix("torch.")
        self.name = f"torch {precision}" + ("" if place == "cpu" else f" on {place}")
        # Embeddings are made in the precision of the weights; float32 reads bfloat16 as it is.
        read: tuple[StoredDtype, ...] = ("float32", "bfloat16")
        plain = read[1:] if model.dtype == torch.bfloat16 else read
        self.slot_dtypes = KEY_VALUE_DTYPES if self.config.memory == "key-values" else plain
        self.vocabulary = int(decoder.get_input_embeddings().weight.shape[0])
        self.context_window = steady_positions(decoder.config)
        self.kv_format = f"safetensors {precision}"
        lead = model.lead_vectors()
        self.lead_slots = None if lead is None else KeyValueSlots(pairs_KY2HW=lead)
        self.stacks = stacks(decoder.config)
        self.last: LastRead | None = None
        self.keeps_all = keeps_all(decoder.config)
        self._cache_size = functools.cache(lambda: CacheSize.of(decoder))

    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions, measured on a small one."""
        return self._cache_size().of_places(positions)

    @torch.inference_mode()
    def encode(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> list[ReadablePayload]:
        """What the decoder gets in place of each span: so many slots; see `TorchForm.encode`."""
        return self.form.encode(spans, slots)

    def passes(
        self, spans: Sequence[tuple[int, int]], *, bound: int | None = None
    ) -> Iterator[list[int]]:
        """Which spans are encoded in one pass: those of like length, or all of one text.

        The latter where the adapter's spans see those before them.

        Args:
            spans: First and last token (exclusive) of each in its text, those of a text in order.
            bound: Most tokens of a pass of several spans that stand alone, padding included.

        Yields:
            Indices of spans, each index once.
        """
        if self.config.previous_spans:
            pairs = enumerate(itertools.pairwise(spans), start=1)
            begins = [i for i, (before, own) in pairs if own[0] != before[1]]
            for own in itertools.pairwise([0, *begins, len(spans)]):
                yield list(range(*own))
            return
        order = sorted(range(len(spans)), key=lambda i: spans[i][0] - spans[i][1])
        lengths = [spans[i][1] - spans[i][0] for i in order]
        for part in span_batches(lengths, bound=bound or self.encoded_tokens):
            yield order[part]

    @torch.inference_mode()
    def score(self, prefixes: Sequence[Prefix], tasks: Sequence[DecoderTask]) -> list[TaskScore]:
        """Teacher forcing of a task behind each prefix, whose objective is the task's tokens."""
        logits = self._logits(prefixes, tasks)
        return [score_task(row_TV, task) for row_TV, task in zip(logits, tasks, strict=True)]

    def _logits(self, prefixes: Sequence[Prefix], tasks: Sequence[DecoderTask]) -> list[Tensor]:
        form = self.form
        rows = [
            self._scored(own, task, form.past_places(own), form.inputs(own), form.past(own))
            for own, task in zip(prefixes, tasks, strict=True)
        ]
        return label_logits(self.model.decoder, rows)

    def _scored(
        self,
        prefix: Prefix,
        task: DecoderTask,
        start: int,
        inputs_FD: Tensor,
        past: KeyValues | None = None,
    ) -> DecoderRow:
        """A task behind a prefix whose first places, up to `start`, need no reading."""
        positions = self.positions(prefix, len(task.input_ids))[start:]
        # The output at the last objective token predicts the first target.
        scored, ids = slice(len(positions) - task.labels, len(positions)), task.input_ids
        return DecoderRow(
            ids=ids, positions=positions, scored=scored, inputs_FD=inputs_FD, past=past
        )

    def recall(self, prefix: Prefix, tasks: Sequence[DecoderTask]) -> list[float]:
        """Teacher forcing of tasks behind one memory, which is read once.

        Returns:
            The share of each task's scored tokens that are the most likely ones (0..1).
        """
        return self.recalling(prefix)(tasks)

    def recalling(self, prefix: Prefix) -> Callable[[Sequence[DecoderTask]], list[float]]:
        """What gives the recall of tasks behind a memory, which is read now."""
        logits_of = self._behind(prefix)

        def recall(tasks: Sequence[DecoderTask]) -> list[float]:
            return [
                float(score_task(row_TV, task).correct_T.float().mean())
                for row_TV, task in zip(logits_of(tasks), tasks, strict=True)
            ]

        return recall

    def logits_behind(self, prefix: Prefix, tasks: Sequence[DecoderTask]) -> Iterator[Tensor]:
        """Logits [T, V] of the scored targets of tasks behind one memory, which is read once."""
        return self._behind(prefix)(tasks)

    @torch.inference_mode()
    def _behind(self, prefix: Prefix) -> Callable[[Sequence[DecoderTask]], Iterator[Tensor]]:
        if not self.keeps_all:
            return lambda tasks: iter(self._logits([prefix] * len(tasks), tasks))
        (past,) = self.read_prefixes([prefix])
        start = past[0][0].shape[2]
        inputs_FD = self._inputs(prefix, np.zeros(0, dtype=np.int64), start)

        @torch.inference_mode()
        def logits(tasks: Sequence[DecoderTask]) -> Iterator[Tensor]:
            for part in self.batches([len(inputs_FD) + len(task.input_ids) for task in tasks]):
                rows = [self._scored(prefix, task, start, inputs_FD) for task in tasks[part]]
                yield from logits_beside(self.model.decoder, past, rows)

        return logits

    def fidelity(
        self, payloads: Sequence[ReadablePayload], spans: Sequence[TokenIds]
    ) -> list[TokenFidelity]:
        """How faithfully each token of each span is held by its payload, under teacher forcing.

        Returns:
            For each span, whether each token is the most likely one and the probability
            it gets; the share of the former is the span's fidelity.
        """
        prefixes = [
            Prefix.of_payload(payload, tokens=len(ids), objective="ae")
            for payload, ids in zip(payloads, spans, strict=True)
        ]
        return [
            TokenFidelity.of_probabilities(
                score.correct_T.cpu().numpy(), score.log_probs_T.exp().cpu().numpy()
            )
            for score in self.score(prefixes, [autoencoding(ids) for ids in spans])
        ]

    def steps(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: Collection[int]
    ) -> Iterator[Step]:
        """The tokens of a batch; in float32 every row gets those that it gets alone.

        A memory that several rows share is read first, once. Caches that cannot be stacked are
        read one after another.
        """
        if not self.stacks:
            yield from super().steps(requests, limits, stop_ids)
            return
        uses = Counter(r.prefix.digest for r in requests if r.prefix is not None)
        shared = {
            r.prefix.digest: r.prefix
            for r in requests
            if r.prefix is not None and uses[r.prefix.digest] > 1
        }
        fronts = dict(zip(shared, self.read_prefixes(list(shared.values())), strict=True))
        rows = [
            self.row(request, fronts, limit=limit)
            for request, limit in zip(requests, limits, strict=True)
        ]
        yield from greedy_rows(self.model.decoder, rows, stop_ids)

    @torch.inference_mode()
    def read_prefixes(self, prefixes: Sequence[Prefix]) -> list[KeyValues]:
        """Read memories for their keys and values.

        The last objective token is left out: it is read with the prompt, which may be empty.
        """
        return self.form.fronts(prefixes) if prefixes else []

    @torch.inference_mode()
    def row(
        self,
        request: Request,
        fronts: Mapping[str, KeyValues],
        *,
        limit: int,
        front: KeyValues | None = None,
    ) -> Row:
        """What an answer of so many tokens is read from.

        Args:
            request: What to answer.
            fronts: By the digests of memories, what `read_prefixes` gave of them.
            limit: Most tokens written.
            front: What of it was read before, if more than its memory was.
        """
        prefix, prompt_ids = request.prefix, request.prompt_ids
        if front is None and prefix is not None:
            front = fronts.get(prefix.digest)
            front = self.form.past(prefix) if front is None else front
        start = 0 if front is None else front[0][0].shape[2]
        return Row(
            front=front,
            tail_SD=self._inputs(prefix, prompt_ids, start),
            positions=self.positions(prefix, len(prompt_ids))[start:],
            limit=limit,
        )

    def may_pad(self, longest: int) -> bool:
        """Whether rows of different lengths may share a batch.

        A sliding window counts padding as places, so there only equal lengths go together.
        """
        window = getattr(
            self.model.decoder.config.get_text_config(decoder=True), "sliding_window", None
        )
        return window is None or longest <= window

    def _inputs(self, prefix: Prefix | None, prompt_ids: TokenIds, start: int) -> Tensor:
        """Decoder inputs of ``[front ; memory ; objective ; prompt]`` from a place on, [S, D]."""
        embeds_SD = self.read_tokens(prompt_ids)
        if prefix is None:
            return embeds_SD[start:]
        read_SD = torch.cat([self.form.inputs(prefix), embeds_SD])
        return read_SD[start - self.form.past_places(prefix) :]

    def read_tokens(self, token_ids: TokenIds) -> Tensor:
        """Token ids as decoder inputs, [N, D]."""
        return embedded(self.model.decoder, token_ids)

    def tokens(
        self, request: Request, limit: int, stop_ids: Collection[int]
    ) -> Generator[int, None, None]:
        """Most likely next token, `limit` times."""
        prefix, prompt_ids = request.prefix, request.prompt_ids
        decoder, device = self.model.decoder, self.model.device
        read = ReadSoFar.of(self.config, prefix, prompt_ids)
        places = list(read.positions)
        cache, start = self._resume(prefix, read)
        # Nothing describes the cache while it is read into.
        self.last = None
        with torch.inference_mode():
            embeds = self._inputs(prefix, prompt_ids, start)[None]
            place = torch.tensor(places[start:], device=device)[None]
        token = -1
        for step in range(limit):
            if step > 0:
                self.last = None
                read.add(token)
            mask = torch.ones(1, len(places) + step, dtype=torch.long, device=device)
            token_R = next_tokens(decoder, cache, embeds, mask, place)
            with torch.inference_mode():
                embeds, place = embed(decoder, token_R)[:, None], place[:, -1:] + 1
            token = int(token_R)
            if self.keeps_all:
                self.last = LastRead(cache=cache, read=read)
            yield token

    @torch.inference_mode()
    def _resume(self, prefix: Prefix | None, read: ReadSoFar) -> tuple[DynamicCache, int]:
        """A cache to go on from for what is read next, and the decoder places it holds."""
        last = self.last
        unread = 0 if prefix is None else self.form.past_places(prefix)
        # At least one input has to be read, for the logits of the first token.
        start = 0 if last is None else min(last.read.shared(read), len(read) - 1)
        if last is not None and start >= max(1, unread):
            return last.cut(start), start
        known = None if last is None else last.places(min(start, unread))
        past = None if prefix is None else self.form.past(prefix, known)
        return DynamicCache(past, config=self.model.decoder.config), unread

    def save_kv(self, prefix: Prefix) -> bytes:
        """Read a memory, unless it was just read, and return its key-value cache."""
        return kv_to_bytes(self.cache_of(prefix))

    def cache_of(self, prefix: Prefix) -> DynamicCache:
        """Read a memory, unless it was just read: its key-value cache, which stays the runtime's.

        Raises:
            InputError: If the cache of this base model forgets.
        """
        read = ReadSoFar.of(self.config, prefix)
        if self.last is None or self.last.read.shared(read) < len(read):
            nothing = np.zeros(0, dtype=np.int64)
            list(self.tokens(Request(prefix=prefix, prompt_ids=nothing), 1, ()))
        if self.last is None:
            raise InputError(
                "The cache of this base model cannot be kept.",
                got="layers that forget",
                expected="full attention in every layer",
                fix="Leave --kv out.",
            )
        cache = self.last.cut(len(read))
        self.last = LastRead(cache=cache, read=read)
        return cache

    def load_kv(self, prefix: Prefix, data: bytes) -> None:
        """Take a key-value cache from `save_kv` as that of a memory just read.

        Raises:
            InputError: If the bytes are no such cache.
        """
        read = ReadSoFar.of(self.config, prefix)
        cache = kv_from_bytes(
            data,
            self.model.decoder,
            places=len(read),
            dtype=self.model.dtype,
            device=self.model.device,
        )
        self.last = LastRead(cache=cache, read=read)
