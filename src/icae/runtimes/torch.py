"""The torch runtime: encoding, verification and greedy decoding with transformers.

Shape legend: R rows, S decoder places, K slots, D hidden size, V vocabulary.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from icae.memory import TokenFidelity
from icae.model.icae import IcaeModel
from icae.model.positions import decoder_positions
from icae.objectives import autoencoding
from icae.runtimes.base import Generated, Prefix, Request
from icae.runtimes.batching import RowClock, row_batches
from icae.runtimes.torch_rows import KeyValues, Row, greedy_rows, read_fronts
from icae.types import FloatArray, TokenIds

TOKENS_PER_BATCH = 512
"""Context tokens encoded or written back in one forward pass. Bounds memory: the logits of
the verification take 8 bytes for each token and vocabulary entry."""


class TorchRuntime:
    """Encoder and decoder of one loaded model.

    Args:
        model: The model with its adapter.
    """

    def __init__(self, model: IcaeModel) -> None:
        self.model = model.eval()

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the decoder can read."""
        return int(self.model.decoder.get_input_embeddings().weight.shape[0])

    @property
    def context_window(self) -> int:
        """Most decoder positions, prompt and answer together."""
        return int(self.model.decoder.config.max_position_embeddings)

    def kv_bytes(self, positions: int) -> int:
        """Bytes of key-value cache for that many decoder positions."""
        config = self.model.decoder.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        element = torch.finfo(self.model.dtype).bits // 8
        return int(2 * config.num_hidden_layers * heads * size * element * positions)

    def batches(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Consecutive slices of spans that together stay within one forward pass."""
        start, longest = 0, 0
        for i, length in enumerate(lengths):
            longest = max(longest, length)
            if i > start and longest * (i - start + 1) > TOKENS_PER_BATCH:
                yield slice(start, i)
                start, longest = i, length
        if start < len(lengths):
            yield slice(start, len(lengths))

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
        layouts = [[(len(ids), len(s))] for s, ids in zip(slots, spans, strict=True)]
        memories = [self.read_slots(s) for s in slots]
        scores = self.model.score(memories, layouts, [autoencoding(ids) for ids in spans])
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
        """Greedy decoding of one answer behind ``[memory ; objective ; prompt]``.

        Args:
            prefix: The memory, or None to read the prompt alone.
            prompt_ids: Rendered prompt.
            max_new_tokens: Most tokens written.
            stop_ids: Tokens that end the answer.
            on_token: Called with each token as it comes.
        """
        begin, first, stopped = time.perf_counter(), 0.0, False
        embeds_SD = self._inputs(prefix, prompt_ids)
        positions = self.positions(prefix, len(prompt_ids))
        written: list[int] = []
        for token in self._greedy(embeds_SD[None], positions, max_new_tokens):
            first = first or time.perf_counter() - begin
            if int(token) in stop_ids:
                stopped = True
                break
            written.append(int(token))
            if on_token is not None:
                on_token(written[-1])
        return Generated(
            token_ids=tuple(written),
            stopped=stopped,
            positions=len(positions),
            first_token_seconds=first,
            seconds=time.perf_counter() - begin,
        )

    def generate_many(
        self, requests: Sequence[Request], *, max_new_tokens: int, stop_ids: Sequence[int]
    ) -> list[Generated]:
        """Greedy decoding of many answers together, in the order of the requests.

        A memory that several requests of one batch share is read once. In float32 every
        request gets the tokens that `generate` would give it.

        Args:
            requests: What to answer.
            max_new_tokens: Most tokens of each answer.
            stop_ids: Tokens that end an answer.
        """
        limits = [max_new_tokens] * len(requests)
        return self._generate_rows(requests, limits, frozenset(stop_ids))

    def write_back(self, prefixes: Sequence[Prefix]) -> list[tuple[int, ...]]:
        """Greedy reconstruction of what each prefix stands for, each to its own length."""
        nothing = np.zeros(0, dtype=np.int64)
        requests = [Request(prefix=prefix, prompt_ids=nothing) for prefix in prefixes]
        limits = [sum(tokens for tokens, _ in prefix.spans) for prefix in prefixes]
        return [made.token_ids for made in self._generate_rows(requests, limits, frozenset())]

    def _generate_rows(
        self, requests: Sequence[Request], limits: Sequence[int], stop_ids: frozenset[int]
    ) -> list[Generated]:
        positions = [self.positions(r.prefix, len(r.prompt_ids)) for r in requests]
        sizes = [len(own) + limit for own, limit in zip(positions, limits, strict=True)]
        result: dict[int, Generated] = {}
        for members in row_batches(requests, sizes, pads=self._may_pad(max(sizes, default=0))):
            begin = time.perf_counter()
            rows = self._rows(
                [requests[i] for i in members],
                [positions[i] for i in members],
                [limits[i] for i in members],
            )
            clocks = [RowClock(begin=begin) for _ in members]
            for step in greedy_rows(self.model.decoder, rows, stop_ids):
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
        shared: dict[str, tuple[Prefix, Sequence[int]]] = {
            r.prefix.digest: (r.prefix, own)
            for r, own in zip(requests, positions, strict=True)
            if r.prefix is not None and uses[r.prefix.digest] > 1
        }
        fronts: dict[str, KeyValues] = {}
        if shared:
            # The last objective token is read with the prompt, which may be empty.
            embeds = [self.prefix_embeds(prefix)[:-1] for prefix, _ in shared.values()]
            places = [own[: len(e)] for e, (_, own) in zip(embeds, shared.values(), strict=True)]
            read = read_fronts(self.model.decoder, embeds, places)
            fronts = dict(zip(shared, read, strict=True))
        rows = []
        for request, own, limit in zip(requests, positions, limits, strict=True):
            embeds_SD = self._inputs(request.prefix, request.prompt_ids)
            front = None if request.prefix is None else fronts.get(request.prefix.digest)
            start = 0 if front is None else front[0][0].shape[2]
            rows.append(
                Row(front=front, tail_SD=embeds_SD[start:], positions=own[start:], limit=limit)
            )
        return rows

    def _may_pad(self, longest: int) -> bool:
        """Whether rows of different lengths may share a batch.

        A sliding window counts padding as places, so there only equal lengths go together.
        """
        window = getattr(self.model.decoder.config, "sliding_window", None)
        return window is None or longest <= window

    def _inputs(self, prefix: Prefix | None, prompt_ids: TokenIds) -> Tensor:
        """Decoder inputs ``[front ; memory ; objective ; prompt]``, [S, D]."""
        embeds_SD = self.read_tokens(prompt_ids)
        return embeds_SD if prefix is None else torch.cat([self.prefix_embeds(prefix), embeds_SD])

    def positions(self, prefix: Prefix | None, prompt_length: int) -> list[int]:
        """Position of every decoder input of ``[front ; memory ; objective ; prompt]``.

        Args:
            prefix: The memory, or None for the prompt alone.
            prompt_length: Tokens of the prompt.
        """
        config = self.model.config
        if prefix is None:
            return list(range(prompt_length))
        prompt = config.objective_tokens + prompt_length
        return decoder_positions(config.layout, prefix.spans, prompt, front=config.front)

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

    def _greedy(self, embeds_RSD: Tensor, positions: Sequence[int], limit: int) -> Iterator[Tensor]:
        """Most likely next token of each row, [R], up to `limit` times."""
        decoder, device = self.model.decoder, self.model.device
        rows, size, _ = embeds_RSD.shape
        cache = DynamicCache(config=decoder.config)
        place = torch.tensor(positions, device=device).expand(rows, -1)
        embeds = embeds_RSD
        for step in range(limit):
            with torch.inference_mode():
                hidden_RSD = decoder.base_model(
                    inputs_embeds=embeds,
                    attention_mask=torch.ones(rows, size + step, dtype=torch.long, device=device),
                    position_ids=place,
                    past_key_values=cache,
                    use_cache=True,
                ).last_hidden_state
                token_R = decoder.get_output_embeddings()(hidden_RSD[:, -1]).argmax(dim=-1)
                embeds = decoder.get_input_embeddings()(token_R)[:, None]
                place = place[:, -1:] + 1
            yield token_R
