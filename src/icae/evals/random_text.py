"""Normal, patterned and random text: does the memory hold text or only what is likely?

Source: Ge et al. 2024, section 3.2 (table of text types).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from icae.config.types import TokenIds
from icae.evals.decoding import encode_contexts, score_tasks, write_back
from icae.evals.experiment import Cell, Material
from icae.evals.reconstruction import FIGURES, GREEDY_NOTE, WritingBack, written_figures
from icae.evals.tables import Row, columns_of
from icae.model.objectives import autoencoding

TEXTS = ("normal", "patterned", "random")


@dataclass(frozen=True, kw_only=True)
class RandomText(WritingBack):
    """The three kinds of text, by length and ratio."""

    name = "random-text"
    title = "Reconstruction of normal, patterned and random text"
    question = "Does the memory hold text, or only what is likely?"
    quick: ClassVar = {"spans": (1,), "ratios": (4.0,), "samples": 8, "greedy": 2}
    full: ClassVar = {"ratios": (4.0,)}
    columns = columns_of("length ratio kind slots", kind="text") | FIGURES
    notes = (
        "Patterned: each token id of the normal text + 1. Random: token ids drawn uniformly. "
        "Both leave out special tokens.",
        GREEDY_NOTE,
    )

    def cells(self, material: Material) -> list[Cell]:
        """Every length, ratio and kind of text."""
        return [replace(cell, text=text) for cell in super().cells(material) for text in TEXTS]

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The row of a cell."""
        engine, kind = material.engine, cell.text or ""
        contexts = make_text(
            kind, self.contexts(material, cell), ordinary_ids(engine.tokenizer), seed=self.seed
        )
        memories = encode_contexts(engine.runtime, contexts, ratio=cell.known_ratio)
        scores = score_tasks(engine.runtime, memories, [autoencoding(ids) for ids in contexts])
        written = write_back(engine.runtime, memories[: self.greedy])
        return [
            {
                "kind": kind,
                "series": f"{kind}, {cell.times}" if len(self.ratios) > 1 else kind,
                "slots": memories[0].positions,
                **written_figures(engine, contexts, scores, written, seed=self.seed),
            }
        ]


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
