"""The torch runtime: encoding, verification and greedy decoding with transformers.

Shape legend: R rows, S decoder places, K slots, D hidden size, V vocabulary.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from icae.config.types import FloatArray, TokenIds
from icae.decode.batching import RowClock, row_batches
from icae.decode.prefix import Generated, Prefix, ReadSoFar, Request
from icae.decode.runtime import Runtime, kv_bytes
from icae.decode.torch_kv import LastRead, keeps_all, kv_from_bytes, kv_to_bytes, stacks
from icae.decode.torch_rows import Row, greedy_rows, read_fronts
from icae.errors import InputError
from icae.memory import TokenFidelity
from icae.memory.provenance import SlotDtype
from icae.model.decoder import KeyValues
from icae.model.icae import IcaeModel, Slots
from icae.model.objectives import autoencoding


class TorchRuntime(Runtime):
    """Encoder and decoder of one loaded model.

    Args:
        model: The model with its adapter.
    """

    span_tokens = 512
    """Context tokens encoded or written back in one forward pass. Bounds memory: the logits of
    the verification take 8 bytes for each token and vocabulary entry."""

    def __init__(self, model: IcaeModel) -> None:
        self.model = model.eval()
        self.config = model.config
        self._keeps_all = keeps_all(model.decoder.config)
        self._last: LastRead | None = None

    @property
    def name(self) -> str:
        """What runs the decoder and in what precision."""
        place = self.model.device.type
        where = "" if place == "cpu" else f" on {place}"
        return f"torch {self.slot_dtypes[0]}{where}"

    @property
    def slot_dtypes(self) -> tuple[SlotDtype, ...]:
        """The precision of the weights: slots are made and read in it."""
        return ("bfloat16",) if self.model.dtype == torch.bfloat16 else ("float32",)

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the decoder can read."""
        return int(self.model.decoder.get_input_embeddings().weight.shape[0])

    @property
    def context_window(self) -> int:
        """Most decoder positions, prompt and answer together."""
        return int(self.model.decoder.config.max_position_embeddings)

    @property
    def position_bytes(self) -> int:
        """Bytes of key-value cache for one decoder position."""
        config = self.model.decoder.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        element = torch.finfo(self.model.dtype).bits // 8
        return kv_bytes(config.num_hidden_layers, heads, size, element=element)

    @torch.inference_mode()
    def encode(self, spans: Sequence[TokenIds], slots: Sequence[int]) -> list[FloatArray]:
        """Slots [K_i, D] of each span, float32; one forward pass."""
        return [s.float().cpu().numpy() for s in self.model.encode_spans(spans, slots)]

    @torch.inference_mode()
    def fidelity(
        self, slots: Sequence[FloatArray], spans: Sequence[TokenIds]
    ) -> list[TokenFidelity]:
        """How faithfully each token of each span is held, under teacher forcing.

        Args:
            slots: Slots [K_i, D] of each span.
            spans: Its token ids.

        Returns:
            For each span, whether each token is the most likely one and the probability
            it gets; the share of the former is the span's fidelity.
        """
        memories = [
            Slots(slots_KD=self.read_slots(own), spans=[(len(ids), len(own))])
            for own, ids in zip(slots, spans, strict=True)
        ]
        scores = self.model.score(memories, [autoencoding(ids) for ids in spans])
        return [
            TokenFidelity.of_probabilities(
                score.correct_T.cpu().numpy(), score.log_probs_T.exp().cpu().numpy()
            )
            for score in scores
        ]

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
        for token in self._greedy(prefix, prompt_ids, max_new_tokens):
            clock.take(token, stop_ids)
            if clock.stopped:
                break
            if on_token is not None:
                on_token(token)
        return clock.generated(positions=len(self.positions(prefix, len(prompt_ids))))

    def generate_rows(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: Sequence[int]
    ) -> list[Generated]:
        """Greedy decoding of many answers together; see `Runtime.generate_rows`.

        In float32 every request gets the tokens that `generate` would give it.
        """
        if not stacks(self.model.decoder.config):
            return [
                self.generate(r.prefix, r.prompt_ids, max_new_tokens=limit, stop_ids=stop_ids)
                for r, limit in zip(requests, limits, strict=True)
            ]
        positions = [self.positions(r.prefix, len(r.prompt_ids)) for r in requests]
        sizes = [len(own) + limit for own, limit in zip(positions, limits, strict=True)]
        result: dict[int, Generated] = {}
        for members in row_batches(requests, sizes, pads=self.may_pad(max(sizes, default=0))):
            begin = time.perf_counter()
            rows = self._rows(
                [requests[i] for i in members],
                [positions[i] for i in members],
                [limits[i] for i in members],
            )
            clocks = [RowClock(begin=begin) for _ in members]
            for step in greedy_rows(self.model.decoder, rows, frozenset(stop_ids)):
                for row, token in zip(step.rows, step.tokens, strict=True):
                    clocks[row].take(token, stop_ids)
            for i, clock in zip(members, clocks, strict=True):
                result[i] = clock.generated(positions=len(positions[i]))
        return [result[i] for i in range(len(requests))]

    def _rows(
        self,
        requests: Sequence[Request],
        positions: Sequence[Sequence[int]],
        limits: Sequence[int],
    ) -> list[Row]:
        """Rows of one batch; a memory that several share is read here, once."""
        uses = Counter(r.prefix.digest for r in requests if r.prefix is not None)
        shared = {
            r.prefix.digest: r.prefix
            for r in requests
            if r.prefix is not None and uses[r.prefix.digest] > 1
        }
        fronts = dict(zip(shared, self.read_prefixes(list(shared.values())), strict=True))
        return [
            self.row(request, fronts, positions=own, limit=limit)
            for request, own, limit in zip(requests, positions, limits, strict=True)
        ]

    def read_prefixes(self, prefixes: Sequence[Prefix]) -> list[KeyValues]:
        """Read memories for their keys and values, in one forward pass.

        The last objective token is left out: it is read with the prompt, which may be empty.
        """
        if not prefixes:
            return []
        embeds = [self.prefix_embeds(prefix)[:-1] for prefix in prefixes]
        places = [
            self.positions(prefix, 0)[: len(e)] for e, prefix in zip(embeds, prefixes, strict=True)
        ]
        return read_fronts(self.model.decoder, embeds, places)

    def row(
        self,
        request: Request,
        fronts: Mapping[str, KeyValues],
        *,
        positions: Sequence[int],
        limit: int,
    ) -> Row:
        """What an answer is read from.

        Args:
            request: What to answer.
            fronts: By the digests of memories, what `read_prefixes` gave of them.
            positions: Position of every decoder input of the request.
            limit: Most tokens written.
        """
        embeds_SD = self._inputs(request.prefix, request.prompt_ids)
        front = None if request.prefix is None else fronts.get(request.prefix.digest)
        start = 0 if front is None else front[0][0].shape[2]
        return Row(front=front, tail_SD=embeds_SD[start:], positions=positions[start:], limit=limit)

    def may_pad(self, longest: int) -> bool:
        """Whether rows of different lengths may share a batch.

        A sliding window counts padding as places, so there only equal lengths go together.
        """
        window = getattr(self.model.decoder.config, "sliding_window", None)
        return window is None or longest <= window

    def _inputs(self, prefix: Prefix | None, prompt_ids: TokenIds) -> Tensor:
        """Decoder inputs ``[front ; memory ; objective ; prompt]``, [S, D]."""
        embeds_SD = self.read_tokens(prompt_ids)
        return embeds_SD if prefix is None else torch.cat([self.prefix_embeds(prefix), embeds_SD])

    def prefix_embeds(self, prefix: Prefix) -> Tensor:
        """Decoder inputs ``[front ; memory ; objective]``, [front + positions + M, D].

        Verbatim tokens are embedded as in any prompt.
        """
        memory = torch.cat([part.read_by(self) for part in prefix.parts])
        return self.model.frame(memory, prefix.objective).detach()

    def read_slots(self, slots_KD: FloatArray) -> Tensor:
        """Slots as decoder inputs, [K, D]."""
        slots = torch.from_numpy(np.ascontiguousarray(slots_KD))
        return slots.to(self.model.device, self.model.dtype)

    def read_tokens(self, token_ids: TokenIds) -> Tensor:
        """Token ids as decoder inputs, [N, D]."""
        with torch.inference_mode():
            on_device = torch.from_numpy(np.asarray(token_ids, dtype=np.int64))
            embed = self.model.decoder.get_input_embeddings()
            embedded: Tensor = embed(on_device.to(self.model.device))
            return embedded

    def _greedy(self, prefix: Prefix | None, prompt_ids: TokenIds, limit: int) -> Iterator[int]:
        """Most likely next token, up to `limit` times."""
        decoder, device = self.model.decoder, self.model.device
        read = ReadSoFar.of(self.config, prefix, prompt_ids)
        places = list(read.positions)
        cache, start = self._resume(read)
        # Nothing describes the cache while it is read into.
        self._last = None
        with torch.inference_mode():
            embeds = self._inputs(prefix, prompt_ids)[None, start:]
            place = torch.tensor(places[start:], device=device)[None]
        token = -1
        for step in range(limit):
            if step > 0:
                self._last = None
                read.add(token)
            with torch.inference_mode():
                hidden_RSD = decoder.base_model(
                    inputs_embeds=embeds,
                    attention_mask=torch.ones(
                        1, len(places) + step, dtype=torch.long, device=device
                    ),
                    position_ids=place,
                    past_key_values=cache,
                    use_cache=True,
                ).last_hidden_state
                token_R = decoder.get_output_embeddings()(hidden_RSD[:, -1]).argmax(dim=-1)
                embeds = decoder.get_input_embeddings()(token_R)[:, None]
                place = place[:, -1:] + 1
            token = int(token_R)
            if self._keeps_all:
                self._last = LastRead(cache=cache, read=read)
            yield token

    def _resume(self, read: ReadSoFar) -> tuple[DynamicCache, int]:
        """A cache to go on from for what is read next, and the decoder inputs it holds."""
        last = self._last
        # At least one input has to be read, for the logits of the first token.
        start = 0 if last is None else min(last.read.shared(read), len(read) - 1)
        if last is None or start == 0:
            return DynamicCache(config=self.model.decoder.config), 0
        return last.cut(start), start

    @property
    def kv_format(self) -> str:
        """What decides the bytes of a key-value cache beside memory and weights."""
        return f"safetensors {str(self.model.dtype).removeprefix('torch.')}"

    def save_kv(self, prefix: Prefix) -> bytes:
        """Read a memory, unless it was just read, and return its key-value cache."""
        read = ReadSoFar.of(self.config, prefix)
        if self._last is None or self._last.read.shared(read) < len(read):
            for _ in self._greedy(prefix, np.zeros(0, dtype=np.int64), 1):
                pass
        if self._last is None:
            raise InputError(
                "The cache of this base model cannot be kept.",
                got="layers that forget",
                expected="full attention in every layer",
                fix="Leave --kv out.",
            )
        cache = self._last.cut(len(read))
        self._last = LastRead(cache=cache, read=read)
        return kv_to_bytes(cache)

    def load_kv(self, prefix: Prefix, data: bytes) -> None:
        """Take a key-value cache from `save_kv` as that of a memory just read.

        Raises:
            InputError: If the bytes are no such cache.
        """
        read = ReadSoFar.of(self.config, prefix)
        cache = kv_from_bytes(
            data,
            self.model.decoder.config,
            places=len(read),
            dtype=self.model.dtype,
            device=self.model.device,
        )
        self._last = LastRead(cache=cache, read=read)
