"""Held-out evaluation inside a run: AE and LM loss and accuracy at each ratio."""

from __future__ import annotations

import numpy as np
import torch

from icae.config import ObjectiveConfig, Recipe
from icae.config.types import TokenIds
from icae.data.shards import ShardSet
from icae.model.adapted_decoder import AdaptedDecoder
from icae.train.sampling import draw_window, text_sample
from icae.train.tally import Tally

SEED = 20240507
BATCH = 16

BOTH = ObjectiveConfig(ae_weight=0.5)
"""Every held-out context is written back and continued, whatever the recipe weighs."""


class Evaluation:
    """The same held-out contexts at every call.

    They are as long as the longest context length up to one span, with the continuations and
    the ratios of the last curriculum stage of the recipe.
    """

    def __init__(self, recipe: Recipe, shards: ShardSet) -> None:
        rng = np.random.default_rng(SEED)
        lengths = [n for n in recipe.data.context_lengths if n <= recipe.model.span_length]
        length = int(max(lengths, default=recipe.model.span_length))
        after = recipe.data.continuation_length
        self.windows: list[tuple[TokenIds, TokenIds]] = [
            draw_window(rng, shards, length, after) for _ in range(recipe.run.eval_samples)
        ]
        self.asking = recipe.model.asking
        self.ratios = sorted(float(r) for r in recipe.data.ratio_curriculum[-1].ratios)

    @torch.no_grad()
    def run(self, model: AdaptedDecoder) -> dict[str, float]:
        """Mean figures over all ratios, and each by ratio (``ae_accuracy_4x`` and so on)."""
        model.eval()
        figures: dict[str, float] = {}
        for ratio in self.ratios:
            samples = [text_sample(c, n, ratio, BOTH, asking=self.asking) for c, n in self.windows]
            tally = Tally()
            for first in range(0, len(samples), BATCH):
                tally.add(model(samples[first : first + BATCH]))
            for name, value in tally.figures().items():
                figures[f"{name}_{ratio:g}x"] = value
                figures[name] = figures.get(name, 0.0) + value / len(self.ratios)
        return figures
