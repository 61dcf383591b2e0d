"""How the next token of one answer is chosen, and how likely the decoder held it.

Shape legend: V vocabulary, S prompt tokens, T tokens scored at a time, D hidden size.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from icae.config.types import TokenIds
from icae.model.around import embed, run_layers, vocabulary_logits

SCORED_TOGETHER = 256
"""Prompt tokens whose logits are held at a time."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen: greedily unless a temperature says otherwise.

    Attributes:
        temperature: Logits are divided by it; 0 takes the most likely token.
        top_p: Of the most likely tokens so many are drawn from that they reach this probability.
        seed: The same seed draws the same; None draws anew.
        presence_penalty: Taken off the logit of a token that was written.
        frequency_penalty: Taken off it for each time that it was written.
        logit_bias: Added to the logits of tokens.
        top_logprobs: Of how many most likely tokens the probabilities are noted at each step, or
            None to note nothing.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None

    @property
    def plain(self) -> bool:
        """Whether the most likely token is taken, and nothing noted."""
        changes = self.temperature or self.presence_penalty or self.frequency_penalty
        return not changes and not self.logit_bias and self.top_logprobs is None


@dataclass(frozen=True, kw_only=True)
class Likely:
    """A token, its log-probability before any change, and the most likely ones in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Chooses the tokens of one answer; nothing that other rows do changes what it draws.

    Attributes:
        noted: Of each token that was chosen, how likely it was.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = random.Random(sampling.seed)
        self._written: Counter[int] = Counter()
        self.noted: list[Likely] = []

    def choose(self, logits_V: Tensor) -> int:
        """The next token, from logits in float32."""
        own = self._sampling
        changed_V = self._changed(logits_V)
        if own.temperature == 0:
            token = int(changed_V.argmax())
        else:
            spread_V = (changed_V.double() - changed_V.max()) / own.temperature
            token = self._drawn(spread_V.softmax(dim=-1))
        self._written[token] += 1
        if own.top_logprobs is not None:
            self.noted += likely(logits_V[None], [token], own.top_logprobs)
        return token

    def _changed(self, logits_V: Tensor) -> Tensor:
        own = self._sampling
        changes = dict(own.logit_bias)
        if own.presence_penalty or own.frequency_penalty:
            for token, times in self._written.items():
                taken = own.presence_penalty + own.frequency_penalty * times
                changes[token] = changes.get(token, 0.0) - taken
        if not changes:
            return logits_V
        changed_V = logits_V.clone()
        at = torch.tensor(list(changes), device=logits_V.device)
        changed_V[at] += torch.tensor(list(changes.values()), device=logits_V.device)
        return changed_V

    def _drawn(self, probabilities_V: Tensor) -> int:
        """A token of the most likely ones that reach `top_p`."""
        sorted_V, tokens_V = probabilities_V.sort(descending=True, stable=True)
        reached_V = sorted_V.cumsum(dim=-1)
        kept = 1 + int((reached_V[:-1] < self._sampling.top_p).sum())
        at = self._random.random() * float(reached_V[kept - 1])
        place = int((reached_V[:kept] <= at).sum())
        return int(tokens_V[min(place, kept - 1)])


def likely(logits_TV: Tensor, tokens: Sequence[int], top: int) -> list[Likely]:
    """How likely tokens were at their places, and the most likely ones there."""
    logprobs_TV = logits_TV.log_softmax(dim=-1)
    best = logprobs_TV.topk(min(top, logprobs_TV.shape[-1]), dim=-1)
    at_T = torch.tensor(list(tokens), device=logits_TV.device)
    own_T = logprobs_TV.gather(1, at_T[:, None])[:, 0]
    return [
        Likely(token=token, logprob=logprob, top=tuple(zip(ids, values, strict=True)))
        for token, logprob, ids, values in zip(
            tokens, own_T.tolist(), best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


@torch.inference_mode()
def prompt_likely(decoder: PreTrainedModel, prompt_ids: TokenIds, top: int) -> list[Likely]:
    """How likely each token of a prompt but the first one is, given those before it."""
    ids_S = torch.from_numpy(prompt_ids).to(decoder.get_input_embeddings().weight.device)
    places_1S = torch.arange(len(ids_S), device=ids_S.device)[None]
    hidden_SD = run_layers(decoder, embed(decoder, ids_S)[None], places_1S)[0]
    found: list[Likely] = []
    for start in range(0, len(ids_S) - 1, SCORED_TOGETHER):
        end = min(start + SCORED_TOGETHER, len(ids_S) - 1)
        logits_TV = vocabulary_logits(decoder, hidden_SD[start:end])
        found += likely(logits_TV, ids_S[start + 1 : end + 1].tolist(), top)
    return found
