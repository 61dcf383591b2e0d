"""Normal, patterned and random text: does the memory hold text or only what is likely?

Source: Ge et al. 2024, section 3.2 (table of text types).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.config.types import TokenIds
from icae.engine import Icae
from icae.evals.contexts import Window
from icae.evals.experiment import Cell, Column, Grid, Row, require_fit
from icae.evals.memories import Tick
from icae.evals.reconstruction import (
    FIGURES,
    GREEDY_NOTE,
    PANELS,
    check_greedy,
    memory_figures,
    reading_cost,
    writing_cost,
)

TEXTS = ("normal", "patterned", "random")


@dataclass(frozen=True, kw_only=True)
class RandomTextSettings(Grid):
    """Settings of the experiment.

    Attributes:
        greedy: Contexts, of the samples, that are also decoded freely.
    """

    greedy: int = 16

    name = "random-text"
    title = "Reconstruction of normal, patterned and random text"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_greedy(self.greedy, self.samples)

    def build(self, engine: Icae, windows: Sequence[Window]) -> RandomText:
        """The experiment on a loaded model and drawn windows."""
        return RandomText(engine, self, windows)


class RandomText:
    """The three kinds of text, by length and ratio.

    Args:
        engine: Adapter and base model.
        settings: Lengths, ratios, numbers of contexts.
        windows: Where the normal text stands.
    """

    columns = (
        Column(title="length", key="length"),
        Column(title="ratio", key="ratio"),
        Column(title="text", key="kind"),
        Column(title="slots", key="slots"),
        *FIGURES,
    )
    panels = PANELS
    notes = (
        "Patterned: each token id of the normal text + 1. Random: token ids drawn uniformly. "
        "Both leave out special tokens.",
        GREEDY_NOTE,
    )

    def __init__(
        self, engine: Icae, settings: RandomTextSettings, windows: Sequence[Window]
    ) -> None:
        self.engine, self.settings, self.windows = engine, settings, windows
        self.ordinary_V = ordinary_ids(engine.tokenizer)
        require_fit(engine, 2 * max(settings.lengths) + 1)

    def cells(self) -> list[Cell]:
        """Every length, ratio and kind of text."""
        return [
            Cell(length=length, ratio=ratio, text=text)
            for length in self.settings.lengths
            for ratio in self.settings.ratios
            for text in TEXTS
        ]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        settings = self.settings
        return reading_cost(cell, settings.samples, passes=1) + writing_cost(cell, settings.greedy)

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The row of a cell."""
        assert cell.ratio is not None
        assert cell.text is not None
        normal = [window.context(cell.length) for window in self.windows]
        contexts = make_text(cell.text, normal, self.ordinary_V, seed=self.settings.seed)
        figures = memory_figures(
            self.engine,
            contexts,
            ratio=cell.ratio,
            greedy=self.settings.greedy,
            seed=self.settings.seed,
            tick=tick,
        )
        several = len(self.settings.ratios) > 1
        series = f"{cell.text}, {cell.ratio:g}x" if several else cell.text
        return [{"kind": cell.text, "series": series, **figures}]


def ordinary_ids(tokenizer: Any) -> NDArray[np.int64]:
    """The token ids of a tokenizer that are not special, in order."""
    return np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids).astype(np.int64)


def make_text(
    kind: str, contexts: Sequence[TokenIds], ordinary_V: NDArray[np.int64], *, seed: int
) -> list[TokenIds]:
    """Contexts of one kind of text.

    Args:
        kind: ``normal``: as it is; ``patterned``: the ordinary id after each id, the last
            one followed by the first; ``random``: ordinary ids drawn uniformly.
        contexts: Normal text.
        ordinary_V: Token ids that are not special, in order.
        seed: Seed of the random text.

    Returns:
        As many contexts, of the same lengths.
    """
    if kind == "normal":
        return list(contexts)
    if kind == "patterned":
        places = [np.searchsorted(ordinary_V, ids, side="right") for ids in contexts]
        return [ordinary_V[place % len(ordinary_V)] for place in places]
    rng = np.random.default_rng(seed)
    return [rng.choice(ordinary_V, len(ids)) for ids in contexts]
