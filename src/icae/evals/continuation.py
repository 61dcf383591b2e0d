"""Text continuation: how well the slots stand for the context when it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from icae.evals.bootstrap import mean_figure, perplexity_figure
from icae.evals.decoding import encode_contexts, slot_losses, token_losses
from icae.evals.experiment import (
    RATIOS,
    Cell,
    HeldOut,
    TextExperiment,
    check_least,
    paper_lengths,
)
from icae.evals.plots import Lines
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
        check_least("The continuation is out of range.", self.tokens, 1, "tokens")

    @property
    def after(self) -> int:
        """The token that leads over, and the scored tokens."""
        return self.tokens + 1

    @property
    def positions(self) -> int:
        """The longest context, what follows it, and [LM]."""
        return max(self.lengths) + self.after + 1


@dataclass(frozen=True, kw_only=True)
class Continuation(ContinuedText):
    """Full context, slots, the last raw tokens and no context, by length and ratio."""

    name = "continuation"
    title = "Perplexity of the continuation behind context and slots"
    question = "How well do slots stand for the text that goes on?"
    columns = columns_of("length ratio kind positions loss perplexity over_full", kind="behind")
    plots = (
        Lines(key="perplexity", title="perplexity of the continuation"),
        Lines(key="over_full", title="perplexity / perplexity behind the full context", level=1.0),
    )
    notes = (
        "Every row reads the token after the context and is scored on the same tokens after "
        "that, under teacher forcing; they are the same at every length.",
        "Last tokens: as many of the context's last raw tokens as there are slots. "
        "Slots: slots and [LM] token. The other rows have no objective token.",
        "The ratio to the full context is paired: its interval is over contexts.",
    )

    @classmethod
    def quick(cls, span: int) -> Self:
        """One length, 2x and 4x."""
        return cls(lengths=(span,), ratios=(2.0, 4.0), tokens=32, samples=12)

    @classmethod
    def full(cls, span: int) -> Self:
        """The lengths of the paper."""
        return cls(lengths=paper_lengths(span), ratios=RATIOS)

    def measure(self, material: HeldOut, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell: full and no context; or slots and last raw tokens."""
        runtime, contexts = material.engine.runtime, self.contexts(material, cell)
        following = self.following(material)
        if cell.ratio is None:
            full = token_losses(runtime, contexts, following)
            nothing = token_losses(runtime, [ids[:0] for ids in contexts], following)
            return [
                {"kind": "full context", "series": "full context", "positions": cell.length}
                | continuation_figures(full, full, seed=self.seed),
                {"kind": "no context", "series": "no context", "positions": 0}
                | continuation_figures(nothing, full, seed=self.seed),
            ]
        full = full_losses(rows, cell.length)
        memories = encode_contexts(runtime, contexts, ratio=cell.ratio)
        slots = slot_losses(runtime, memories, following)
        count, name = memories[0].positions, cell.times
        last = token_losses(runtime, [ids[-count:] for ids in contexts], following)
        return [
            {"kind": "slots", "series": f"{name} slots", "positions": count + 1}
            | continuation_figures(slots, full, seed=self.seed),
            {"kind": "last tokens", "series": f"{name}, as many last tokens", "positions": count}
            | continuation_figures(last, full, seed=self.seed),
        ]


def continuation_figures(
    losses: NDArray[np.float64], full: NDArray[np.float64], *, seed: int
) -> Row:
    """Loss, perplexity and their ratio to the full context, over contexts.

    Args:
        losses: Mean loss (nats) of what follows each context.
        full: The same behind the full context.
        seed: Seed of the bootstrap.
    """
    return {
        "samples": len(losses),
        "loss": mean_figure(losses, seed=seed),
        "perplexity": perplexity_figure(losses, seed=seed),
        "over_full": perplexity_figure(losses - full, seed=seed),
        "per_context": {"loss": losses.tolist()},
    }


def full_losses(rows: Sequence[Row], length: int) -> NDArray[np.float64]:
    """Losses behind the full context, measured in a cell before."""
    found = next(r for r in rows if r["length"] == length and r["kind"] == "full context")
    return np.array(found["per_context"]["loss"])
