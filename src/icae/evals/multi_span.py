"""Many spans: how well their slots together stand for the context, in raw tokens.

Source: Ge et al. 2024, section 3.3 (concatenated memories).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from icae.evals.bootstrap import Figure, bootstrap
from icae.evals.continuation import ContinuedText, full_losses
from icae.evals.decoding import encode_contexts, slot_losses, token_losses
from icae.evals.experiment import RATIOS, Cell, Material
from icae.evals.plots import lines_of
from icae.evals.tables import Row, columns_of


@dataclass(frozen=True, kw_only=True)
class MultiSpan(ContinuedText):
    """Slots of 2..16 spans against the last raw tokens; lengths are whole numbers of spans."""

    samples: int = 32

    name = "multi-span"
    title = "Perplexity behind many spans of slots, in raw tokens"
    question = "Do the slots of many spans work together, and what are they worth in raw tokens?"
    quick: ClassVar = {"spans": (2, 4), "ratios": (4.0,), "tokens": 32, "samples": 6}
    full: ClassVar = {"spans": (2, 4, 8, 16), "ratios": RATIOS[:3], "samples": 64}
    columns = columns_of(
        "spans length ratio kind positions perplexity over_full raw_equal gain", kind="behind"
    )
    plots = lines_of("perplexity over_full raw_equal gain", along="spans")
    notes = (
        "Scored as in `icae eval continuation`: every row reads the token after the context and "
        "is scored on the same tokens after that.",
        "Equal to raw tokens: how many of the context's last raw tokens give the perplexity that "
        "the slots give; measured behind 0, 1, 2, 4, ... and all tokens, in between on a straight "
        "line over log(1 + tokens). At the context's length it stands for that many or more. "
        "A position: the same, for each decoder position of slots and [LM] tokens.",
    )

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell: full and no context; or slots."""
        engine, following = material.engine, self.following(material)
        contexts = self.contexts(material, cell)
        spans = {"spans": -(-cell.length // engine.config.span_length)}
        if cell.ratio is None:
            sizes = tail_sizes(cell.length)
            tails = ([ids[len(ids) - size :] for ids in contexts] for size in sizes)
            behind = [token_losses(engine.runtime, tail, following) for tail in tails]
            full = {"tails": sizes, "tail_losses": np.stack(behind, axis=1).tolist()}
            return [
                {**spans, "kind": kind, "series": kind, "positions": size}
                | self.figures(losses, behind[-1])
                | more
                for kind, size, losses, more in (
                    ("full context", cell.length, behind[-1], full),
                    ("no context", 0, behind[0], {}),
                )
            ]
        memories = encode_contexts(engine.runtime, contexts, ratio=cell.ratio)
        losses = slot_losses(engine.runtime, memories, following)
        markers = engine.config.front + engine.config.objective_tokens
        positions = memories[0].positions + markers
        stored = next(r for r in rows if r["length"] == cell.length and "tails" in r)
        curves = np.array(stored["tail_losses"])
        equal = equal_tokens(stored["tails"], curves, losses, seed=self.seed)
        low, high = equal["low"] / positions, equal["high"] / positions
        return [
            {
                **spans,
                "kind": "slots",
                "series": f"{cell.times} slots",
                "positions": positions,
                **self.figures(losses, full_losses(rows, cell.length)),
                "raw_equal": equal,
                "gain": Figure(value=equal["value"] / positions, low=low, high=high),
            }
        ]


def tail_sizes(length: int) -> list[int]:
    """0, 1, 2, 4, ... below a length, and the length."""
    return [0, *(2**n for n in range(length.bit_length()) if 2**n < length), length]


def equal_tokens(
    sizes: Sequence[int],
    tail_losses: NDArray[np.float64],
    losses: NDArray[np.float64],
    *,
    seed: int,
) -> Figure:
    """How many last raw tokens give a mean loss, with its interval over contexts.

    Args:
        sizes: Numbers of raw tokens, rising from 0.
        tail_losses: Loss of each context behind that many, [contexts, sizes].
        losses: Loss of each context behind what is compared with them.
        seed: Seed of the bootstrap.
    """

    def equal(picks: NDArray[np.int64]) -> NDArray[np.float64]:
        curves, wanted = tail_losses[picks].mean(axis=-2), losses[picks].mean(axis=-1)
        pairs = np.concatenate([curves, wanted[..., None]], axis=-1)
        return np.apply_along_axis(lambda row: crossing(sizes, row[:-1], row[-1]), -1, pairs)

    return bootstrap(equal, len(losses), seed=seed)


def crossing(sizes: Sequence[int], curve: NDArray[np.float64], wanted: float) -> float:
    """The number of tokens at which a falling curve reaches a loss.

    Args:
        sizes: Numbers of tokens, rising from 0.
        curve: Loss behind each; where it rises, the lowest loss so far counts.
        wanted: The loss to reach.

    Returns:
        0 if the loss is not below that of no token; the last size if no size reaches it.
    """
    falling = np.minimum.accumulate(curve)
    reached = np.flatnonzero(falling <= wanted)
    if not len(reached):
        return float(sizes[-1])
    at = int(reached[0])
    if at == 0:
        return 0.0
    share = (falling[at - 1] - wanted) / (falling[at - 1] - falling[at])
    low, high = np.log1p(sizes[at - 1]), np.log1p(sizes[at])
    return float(np.expm1(low + share * (high - low)))
