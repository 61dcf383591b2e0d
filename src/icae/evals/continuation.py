"""Text continuation: how well the slots stand for the context when it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from icae.config.parsing import check
from icae.evals.bootstrap import context_figures, perplexity_figure
from icae.evals.decoding import encode_contexts, slot_losses, token_losses
from icae.evals.experiment import PAPER_LENGTHS, RATIOS, Cell, Material, TextExperiment
from icae.evals.plots import lines_of
from icae.evals.tables import Row, columns_of


@dataclass(frozen=True, kw_only=True)
class ContinuedText(TextExperiment):
    """An experiment on what follows the contexts.

    Attributes:
        tokens: Scored tokens of the continuation.
    """

    tokens: int = 128

    baseline = True

    def __post_init__(self) -> None:
        super().__post_init__()
        message = "The continuation is out of range."
        check(self.tokens >= 1, message, self.tokens, "1 or more tokens")

    @property
    def after(self) -> int:
        """The token that leads over, and the scored tokens."""
        return self.tokens + 1

    @property
    def positions(self) -> int:
        """The longest context, what follows it, and [LM]."""
        return max(self.lengths) + self.after + 1

    def figures(self, losses: NDArray[np.float64], full: NDArray[np.float64]) -> Row:
        """Loss, perplexity and their ratio to the full context, over contexts.

        Args:
            losses: Mean loss (nats) of what follows each context.
            full: The same behind the full context.
        """
        return {
            "samples": len(losses),
            **context_figures({"loss": losses.tolist()}, seed=self.seed),
            "perplexity": perplexity_figure(losses, seed=self.seed),
            "over_full": perplexity_figure(losses - full, seed=self.seed),
        }


@dataclass(frozen=True, kw_only=True)
class Continuation(ContinuedText):
    """Full context, slots, the last raw tokens and no context, by length and ratio."""

    name = "continuation"
    title = "Perplexity of the continuation behind context and slots"
    question = "How well do slots stand for the text that goes on?"
    quick: ClassVar = {"spans": (1,), "ratios": RATIOS, "tokens": 32, "samples": 12}
    full: ClassVar = {"ratios": RATIOS}
    paper = PAPER_LENGTHS
    columns = columns_of("length ratio kind positions loss perplexity over_full", kind="behind")
    plots = lines_of("perplexity over_full")
    notes = (
        "Every row reads the token after the context and is scored on the same tokens after "
        "that, under teacher forcing; they are the same at every length.",
        "Last tokens: as many of the context's last raw tokens as there are slots. "
        "Slots: slots and [LM] token. The other rows have no objective token.",
        "The ratio to the full context is paired: its interval is over contexts.",
    )

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell: full and no context; or slots and last raw tokens."""
        runtime, contexts = material.engine.runtime, self.contexts(material, cell)
        following = self.following(material)
        if cell.ratio is None:
            full = token_losses(runtime, contexts, following)
            nothing = token_losses(runtime, [ids[:0] for ids in contexts], following)
            made = [("full context", cell.length, full), ("no context", 0, nothing)]
            return [
                {"kind": kind, "series": kind, "positions": n, **self.figures(losses, full)}
                for kind, n, losses in made
            ]
        full = full_losses(rows, cell.length)
        memories = encode_contexts(runtime, contexts, ratio=cell.ratio)
        slots = slot_losses(runtime, memories, following)
        count, name = memories[0].positions, cell.times
        last = token_losses(runtime, [ids[-count:] for ids in contexts], following)
        return [
            {"kind": "slots", "series": f"{name} slots", "positions": count + 1}
            | self.figures(slots, full),
            {"kind": "last tokens", "series": f"{name}, as many last tokens", "positions": count}
            | self.figures(last, full),
        ]


def full_losses(rows: Sequence[Row], length: int) -> NDArray[np.float64]:
    """Losses behind the full context, measured in a cell before."""
    found = next(r for r in rows if r["length"] == length and r["kind"] == "full context")
    return np.array(found["per_context"]["loss"])
