"""Whether a base computes what memories rest on: found on a few random token ids, not by its name.

A memory stands for tokens only if input embeddings give what token ids give, logits made from
hidden states at labels are the model's own, what was cached is what one pass computes, positions
are not in the inputs, rows do not see their padding, and nothing is drawn at random. A base that
fails is refused with what failed and by how much; what was found is kept beside the cache by the
base's identity, so that a base is tried once.

Shape legend: N token ids, T compared places, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
import transformers
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from icae.config import ModelConfig
from icae.errors import BaseModelError
from icae.model.around import embed, first_inputs, run_layers, vocabulary_logits
from icae.model.base import base_hash, computation_hash
from icae.model.base_files import recall_json, remember_json
from icae.model.decoder import DecoderRow, label_logits
from icae.model.full_context import FullContextModel
from icae.model.rotary import steady_positions

VERSION = 3
"""Version of the checks: what an older one found is not read."""

IDS = 24
"""Token ids that are tried."""

STEPS = 4
"""Of these, how many are read one by one behind a cache."""

BOUNDS = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""Largest difference of a logit, of the largest logit, that rounding explains. Where rounding is
coarse, the middle one of the places counts: an expert more or less moves a single place."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        check: Its name.
        claim: What has to hold.
        amount: Largest difference of a logit, of the largest logit; infinite if it failed to run.
        bound: What is allowed.
        error: What was raised, or "".
    """

    check: str
    claim: str
    amount: float
    bound: float
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether the base has passed it."""
        return self.amount <= self.bound


class _Trial:
    """A base, a few token ids, and the logits that it gives for them itself.

    Each check says by how much the base is off.
    """

    def __init__(self, decoder: PreTrainedModel) -> None:
        self.decoder = decoder
        weight = decoder.get_input_embeddings().weight
        self.coarse = weight.dtype != torch.float32
        rng = torch.Generator().manual_seed(0)
        self.ids_1N = torch.randint(0, len(weight), (1, IDS), generator=rng).to(weight.device)
        self.own_NV = self.logits()
        self.inputs_1ND = embed(decoder, self.ids_1N)

    def logits(self, model: PreTrainedModel | None = None, **inputs: Tensor) -> Tensor:
        """The model's own logits [N, V], of the ids unless other inputs are given."""
        positions = torch.arange(IDS, device=self.ids_1N.device)[None]
        made = (model or self.decoder)(
            **(inputs or {"input_ids": self.ids_1N}),
            attention_mask=torch.ones_like(self.ids_1N),
            position_ids=positions,
            use_cache=False,
        )
        logits_NV: Tensor = made.logits[0].float()
        return logits_NV

    def _apart(self, made_TV: Tensor, own_TV: Tensor) -> float:
        """Largest difference of the places (the middle one), of the largest logit."""
        off_T = (made_TV - own_TV).abs().amax(dim=-1)
        off = off_T.median() if self.coarse else off_T.max()
        amount = float(off) / max(float(own_TV.abs().max()), 1e-30)
        return amount if math.isfinite(amount) else math.inf

    def embeddings(self) -> float:
        return self._apart(self.logits(inputs_embeds=self.inputs_1ND), self.own_NV)

    def vectors(self) -> float:
        noise = torch.linspace(-1, 1, self.inputs_1ND.shape[-1], device=self.ids_1N.device)
        vectors_1ND = self.inputs_1ND * (1 + 0.1 * noise.to(self.inputs_1ND.dtype))
        read_NV = self.logits(inputs_embeds=vectors_1ND)
        return 0.0 if read_NV.isfinite().all() else math.inf

    def head(self) -> float:
        return self._apart(label_logits(self.decoder, [self._row(IDS)])[0], self.own_NV)

    def rows(self) -> float:
        short = IDS // 2
        made, _ = label_logits(self.decoder, [self._row(short), self._row(IDS)])
        return self._apart(made, self.own_NV[:short])

    def _row(self, size: int) -> DecoderRow:
        ids = self.ids_1N[0, :size].cpu().numpy()
        return DecoderRow(ids=ids, positions=range(size), scored=slice(0, size))

    def cache(self) -> float:
        last = steady_positions(self.decoder.config)
        near, split = list(range(IDS)), IDS - STEPS
        return max(self._cached(near), self._cached([*near[:split], *range(last - STEPS, last)]))

    def _cached(self, positions: Sequence[int]) -> float:
        """Read with a cache, the last ids one by one, against one pass over all of them."""
        places_1N = torch.tensor([list(positions)], device=self.ids_1N.device)
        ends = [IDS - STEPS, *range(IDS - STEPS + 1, IDS + 1)]
        whole, apart = (DynamicCache(config=self.decoder.config) for _ in range(2))
        whole_TV = self._read(0, IDS, places_1N, whole)[-STEPS:]
        steps = [self._read(at, to, places_1N, apart) for at, to in pairwise([0, *ends])]
        return self._apart(torch.cat(steps[1:]), whole_TV)

    def _read(self, start: int, end: int, places_1N: Tensor, cache: DynamicCache) -> Tensor:
        hidden_1ND = run_layers(
            self.decoder,
            embed(self.decoder, self.ids_1N[:, start:end]),
            places_1N[:, start:end],
            cache=cache,
            mask_RP=torch.ones_like(self.ids_1N[:, :end]),
        )
        return vocabulary_logits(self.decoder, hidden_1ND[0])

    def shift(self) -> float:
        places = [torch.arange(at, at + IDS, device=self.ids_1N.device)[None] for at in (0, 7)]
        seen = first_inputs(
            self.decoder, *({"input_ids": self.ids_1N, "position_ids": own} for own in places)
        )
        return self._apart(*(own.flatten(0, -2).float() for own in seen)) if seen else 0.0

    def again(self) -> float:
        return self._apart(self.logits(), self.own_NV)

    def adapter(self) -> float:
        try:
            model = FullContextModel(self.decoder, ModelConfig(lora_rank=1))
        except BaseModelError:  # projections of other names
            every = ModelConfig(lora_rank=1, lora_targets="all-linear")
            model = FullContextModel(self.decoder, every)
        model.train()
        try:
            return self._apart(self.logits(model.adapted), self.own_NV)
        finally:
            model.eval()

    def attention(self) -> float:
        chosen = self.decoder.config._attn_implementation
        if chosen == "eager":
            return 0.0
        self.decoder.set_attn_implementation("eager")
        try:
            return self._apart(self.logits(), self.own_NV)
        finally:
            self.decoder.set_attn_implementation(chosen)


CHECKS: dict[str, tuple[str, Callable[[_Trial], float]]] = {
    "embeddings": ("input embeddings give the logits of their ids", _Trial.embeddings),
    "vectors": ("inputs that are no token's embedding are read, too", _Trial.vectors),
    "head": ("logits from hidden states at labels are the model's own", _Trial.head),
    "cache": ("cached, token by token, is as one pass, up to the last position", _Trial.cache),
    "positions": ("positions are not added to what the first layer receives", _Trial.shift),
    "rows": ("a row beside a longer one is as alone", _Trial.rows),
    "again": ("a second pass is equal, bit for bit", _Trial.again),
    "adapter": ("with an untrained LoRA it is the base, in training mode too", _Trial.adapter),
    "attention": ("the attention in use is as the plain one (eager)", _Trial.attention),
}
"""Name -> what has to hold, and what measures by how much it does not."""


@torch.no_grad()
def self_check(decoder: PreTrainedModel) -> list[Finding]:
    """Try a base; nothing is raised for what it does wrong."""
    bound = BOUNDS.get(decoder.get_input_embeddings().weight.dtype, BOUNDS[torch.bfloat16])
    found: list[Finding] = []
    try:
        trial = _Trial(decoder)
    except Exception as error:  # a model of somebody else may fail in any way
        return [_failed("own", "the model reads token ids at given positions", error)]
    for name, (claim, measure) in CHECKS.items():
        try:
            amount = measure(trial)
        except Exception as error:
            found.append(_failed(name, claim, error))
        else:
            exact = 0.0 if name == "again" else bound
            found.append(Finding(check=name, claim=claim, amount=amount, bound=exact))
    return found


def _failed(name: str, claim: str, error: Exception) -> Finding:
    what = (str(error).strip().splitlines() or [""])[0]
    what = f"{type(error).__name__}: {what}"[:120]
    return Finding(check=name, claim=claim, amount=math.inf, bound=0.0, error=what)


def checked_base(base: str, decoder: PreTrainedModel) -> str:
    """The weight hash of a base; a BaseModelError unless it computes what memories rest on."""
    weights = base_hash(base, decoder)
    failed = [finding for finding in kept_check(decoder, weights) if not finding.holds]
    if failed:
        raise BaseModelError(
            f"Memories of {base} would be wrong.",
            got="; ".join(f"{f.check}: {f.error or f'off by {f.amount:.1%}'}" for f in failed),
            expected="; ".join(f"{f.claim} (within {f.bound:.1%})" for f in failed),
            fix=f"`icae check {base}` prints all. Try --dtype float32, else another base.",
        )
    return weights


def kept_check(decoder: PreTrainedModel, weights: str, *, anew: bool = False) -> list[Finding]:
    """What was found of a base with a weight hash, from the cache or, if need be or `anew`, now."""
    versions = f"{VERSION} {transformers.__version__} {torch.__version__}"
    loaded = f"{decoder.dtype} {decoder.device.type} {decoder.config._attn_implementation}"
    name = f"{weights} {computation_hash(decoder.config)} {loaded} {versions}"
    kept = None if anew else recall_json("checks", name)
    if kept is not None:
        return [Finding(**row) for row in kept]
    found = self_check(decoder)
    remember_json("checks", name, [asdict(finding) for finding in found])
    return found
