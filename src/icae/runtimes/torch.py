"""The torch runtime: encoding, verification and greedy decoding with transformers.

Shape legend: R rows, S decoder places, K slots, D hidden size, V vocabulary.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from icae.memory import TokenFidelity
from icae.model.icae import IcaeModel
from icae.model.positions import decoder_positions
from icae.objectives import autoencoding
from icae.runtimes.base import Generated, Prefix
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
        embeds_SD = self.read_tokens(prompt_ids)
        if prefix is not None:
            embeds_SD = torch.cat([self.prefix_embeds(prefix), embeds_SD])
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

    def write_back(self, prefixes: Sequence[Prefix]) -> list[tuple[int, ...]]:
        """Greedy reconstruction of what each prefix stands for, each to its own length.

        Spans of equal length and positions are decoded together, so nothing is padded.
        """
        groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for i, prefix in enumerate(prefixes):
            groups[prefix.spans].append(i)
        result: list[tuple[int, ...]] = [()] * len(prefixes)
        for spans, members in groups.items():
            length = sum(tokens for tokens, _ in spans)
            for part in self.batches([length] * len(members)):
                rows = members[part]
                embeds = torch.stack([self.prefix_embeds(prefixes[i]) for i in rows])
                positions = self.positions(prefixes[rows[0]], 0)
                steps = torch.stack(list(self._greedy(embeds, positions, length)), dim=1)
                for row, ids in zip(rows, steps.tolist(), strict=True):
                    result[row] = tuple(ids)
        return result

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
