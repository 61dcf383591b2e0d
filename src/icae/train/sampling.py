"""Training samples as a pure function of (seed, step): what makes resuming exact.

No state is kept between steps. Step s draws its samples from a generator keyed by the
recipe's seed and s, so a resumed run, or one on another number of processes, sees the
same batch at the same step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icae.config import ObjectiveConfig, Recipe
from icae.config.asking import AskingConfig
from icae.config.data import DataConfig
from icae.config.types import TokenIds
from icae.data.shards import ShardSet
from icae.errors import TrainingError
from icae.model.objectives import DecoderTask, Sample, autoencoding, continuation, draw_probes
from icae.model.prompts import CHAT
from icae.train.instructions import MIN_CONTEXT, InstructionSource

DRAWS = 1000


def _pick(rng: np.random.Generator, weights: Mapping[Any, float]) -> Any:
    keys = list(weights)
    p = np.array([weights[k] for k in keys], dtype=np.float64)
    return keys[int(rng.choice(len(keys), p=p / p.sum()))]


def draw_window(
    rng: np.random.Generator, shards: ShardSet, context: int, after: int
) -> tuple[TokenIds, TokenIds]:
    """A random context of up to `context` tokens and up to `after` tokens that follow it.

    Places are drawn uniformly over tokens. Where the document is too short, the context
    is cut so that at least one token (or a fifth of the document) follows it.
    """
    for _ in range(DRAWS):
        offset = int(rng.integers(shards.tokens))
        start, end = shards.document_at(offset)
        room = end - start
        if room < MIN_CONTEXT + 1:
            continue
        if room >= context + after:
            first = min(offset, end - context - after)
            ids = shards.read(first, first + context + after)
            return ids[:context], ids[context:]
        cut = min(context, max(MIN_CONTEXT, room - min(after, max(1, room // 5))))
        ids = shards.read(start, min(end, start + cut + after))
        return ids[:cut], ids[cut:]
    raise TrainingError(
        "The token shards hold no usable document.",
        got=f"{DRAWS} draws of documents under {MIN_CONTEXT + 1} tokens",
        fix="Pack longer documents.",
    )


class SampleSource:
    """Draws the samples of each step.

    Args:
        shards: Packed pretraining tokens; needed unless every sample is a triplet.
        instructions: Where triplets come from; needed if `objective.ft_share` > 0.
    """

    def __init__(
        self,
        recipe: Recipe,
        shards: ShardSet | None,
        instructions: InstructionSource | None = None,
    ) -> None:
        self.recipe = recipe
        self.shards = shards
        self.instructions = instructions

    def draw(self, step: int) -> list[Sample]:
        """The samples of one optimizer step, over all processes.

        Instruction samples are spread by largest remainder, so that their share over
        many steps is exactly `objective.ft_share`. The texts of a step are of one length, so
        that none is padded and no process waits for another.
        """
        recipe = self.recipe
        rng = np.random.default_rng([recipe.optim.seed, step])
        size, share = recipe.optim.batch_size, recipe.objective.ft_share
        instructions = int((step + 1) * size * share + 1e-9) - int(step * size * share + 1e-9)
        ratios = _ratios_at(recipe.data, step / recipe.optim.steps)
        samples = []
        for _ in range(instructions):
            assert self.instructions is not None
            samples.append(self.instructions.draw(rng, float(_pick(rng, ratios))))
        length = int(_pick(rng, recipe.data.context_lengths))
        samples += [
            self._text(rng, float(_pick(rng, ratios)), length) for _ in range(size - instructions)
        ]
        return samples

    def _text(self, rng: np.random.Generator, ratio: float, length: int) -> Sample:
        assert self.shards is not None
        data, objective = self.recipe.data, self.recipe.objective
        after = data.continuation_length if objective.has_lm else 1
        context_ids, next_ids = draw_window(rng, self.shards, length, after)
        asked: tuple[DecoderTask, ...] = ()
        if objective.recall_weight > 0:
            asked = draw_probes(rng, context_ids, data.recall_probes)
        asking = self.recipe.model.asking
        return text_sample(context_ids, next_ids, ratio, objective, asking=asking, asked=asked)


def own_share(samples: Sequence[Sample], *, rank: int, world: int) -> list[Sample]:
    """The samples of a step that one process trains on, about as much work for each process.

    Dealt out from the costliest down, forth and back over the processes. The shares of all
    processes are the whole step, none twice.
    """
    dealt = sorted(range(len(samples)), key=lambda i: (-_tokens_read(samples[i]), i))
    mine = []
    for first in range(0, len(dealt), world):
        forth = (first // world) % 2 == 0
        mine += dealt[first + (rank if forth else world - 1 - rank) :][:1]
    return [samples[i] for i in mine]


def _tokens_read(sample: Sample) -> float:
    """Tokens that encoder and decoder read for a sample, about."""
    context = len(sample.context_ids)
    return context + sum(context / sample.ratio + len(t.input_ids) for t in sample.tasks)


def text_sample(
    context_ids: TokenIds,
    next_ids: TokenIds,
    ratio: float,
    objective: ObjectiveConfig,
    *,
    asking: AskingConfig = CHAT,
    asked: Sequence[DecoderTask] = (),
) -> Sample:
    """A pretraining sample with the tasks that have weight, and what is asked of the context."""
    tasks = []
    context_ids = np.array([*asking.begin, *context_ids], dtype=np.int64)
    if objective.has_ae:
        tasks.append(autoencoding(np.array([*context_ids, *asking.written_end], dtype=np.int64)))
    if objective.has_lm and len(next_ids):
        tasks.append(continuation(next_ids))
    return Sample(context_ids=context_ids, ratio=ratio, tasks=(*tasks, *asked))


def _ratios_at(data: DataConfig, progress: float) -> Mapping[float, float]:
    """Ratio weights of the curriculum stage at a share of the run."""
    for stage in data.ratio_curriculum:
        if progress < stage.until:
            return stage.ratios
    return data.ratio_curriculum[-1].ratios
