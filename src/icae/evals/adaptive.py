"""Adaptive compression against fixed ratios: what is held for how many decoder positions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

from icae.compression.adaptive import FidelityPolicy
from icae.compression.compressor import verbatim_spans
from icae.compression.refinement import RefineConfig
from icae.config.types import TokenIds
from icae.engine import Engine
from icae.errors import ConfigError
from icae.evals.bootstrap import context_figures
from icae.evals.decoding import ContextMemory, slot_losses
from icae.evals.experiment import RATIOS, Cell, Material, TextExperiment
from icae.evals.plots import lines_of
from icae.evals.tables import Row, columns_of
from icae.memory import Span

CONTINUATION = 32
"""Scored tokens of the true continuation."""


@dataclass(frozen=True, kw_only=True)
class Adaptive(TextExperiment):
    """Fixed ratios, budgets and fidelities on the same contexts.

    Attributes:
        ratios: The fixed ratios, and those to choose from.
        min_fidelities: Fidelities that every span must reach, without refinement.
        budgets: Decoder positions allowed, as shares of the context tokens.
        refined: Fidelities that every span must reach, with refinement.
        steps: Most refinement steps of a span at one ratio.
    """

    min_fidelities: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    budgets: tuple[float, ...] = (0.2, 0.25, 0.35, 0.5, 0.7)
    refined: tuple[float, ...] = ()
    steps: int = 60
    samples: int = 8

    name = "adaptive"
    title = "Fidelity by decoder positions: adaptive and fixed ratios"
    question = "Does a ratio chosen span by span hold more than a fixed one?"
    quick: ClassVar = {
        "spans": (3,),
        "ratios": RATIOS[:3],
        "min_fidelities": (0.5, 0.7),
        "budgets": (0.25, 0.5),
        "samples": 4,
    }
    full: ClassVar = {"spans": (4,), "ratios": RATIOS, "refined": (0.9, 0.99), "samples": 32}
    columns = columns_of(
        "length text positions_share fidelity fixed_share exact verbatim loss seconds",
        text="policy",
        loss="next-token loss (nats/token)",
        seconds="seconds a context",
    )
    plots = lines_of("fidelity loss", along="positions")
    notes = (
        "Positions: slots and verbatim tokens. Fidelity: share of the tokens that are "
        "reproduced under teacher forcing, verbatim ones included.",
        "Fixed ratios need: positions per context token at which one ratio for all spans has "
        "the same fidelity, on the line through the fixed ratios of this table and verbatim.",
        "Known exact: tokens in spans that are verbatim or were written back freely without an "
        "error; at a fixed ratio that is not tried.",
        f"Next-token loss: the true continuation behind the memory and [LM], {CONTINUATION} "
        "tokens under teacher forcing. Seconds: compressing and measuring.",
    )

    grows = ("lengths", "ratios", "min_fidelities", "budgets", "refined")

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = [share for share in self.budgets if not 0 < share <= 1]
        if wrong:
            raise ConfigError(
                "A budget is out of range.",
                got=", ".join(map(str, wrong)),
                expected="above 0, at most 1 (a share of the context tokens)",
            )
        self._policies(100)  # checks the values

    def _policies(self, tokens: int) -> dict[str, FidelityPolicy]:
        """Text of a cell -> its policy for contexts of a length, in the order of measuring."""
        policy = partial(FidelityPolicy, ratios=self.ratios)
        refine = RefineConfig(steps=self.steps)
        budgets = {x: policy(budget=max(1, int(x * tokens))) for x in self.budgets}
        targets = {x: policy(min_fidelity=x) for x in self.min_fidelities}
        refined = {x: policy(min_fidelity=x, refine=refine) for x in self.refined}
        return {
            **{f"budget {x:g}": own for x, own in budgets.items()},
            **{f"min fidelity {x:g}": own for x, own in targets.items()},
            **{f"min fidelity, refined {x:g}": own for x, own in refined.items()},
        }

    @property
    def after(self) -> int:
        """The token that leads over, and the scored tokens."""
        return CONTINUATION + 1

    @property
    def positions(self) -> int:
        """Two of the longest context and of what follows it."""
        return 2 * (max(self.lengths) + self.after)

    def cells(self, material: Material) -> list[Cell]:
        """For each length the fixed ratios, then every policy."""
        return [
            cell
            for length in self.lengths
            for cell in (
                *(Cell(length=length, ratio=r, text=f"fixed {r:g}x") for r in self.ratios),
                *(Cell(length=length, text=text) for text in self._policies(length)),
            )
        ]

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The row of a cell."""
        engine, contexts = material.engine, self.contexts(material, cell)
        begin = time.perf_counter()
        made = self._spans(engine, contexts, cell)
        seconds = (time.perf_counter() - begin) / len(contexts)
        memories = [ContextMemory.of_spans(spans) for spans in made]
        losses = slot_losses(engine.runtime, memories, self.following(material))
        shares = {
            "positions_share": [_share(own, lambda s: s.positions) for own in made],
            "fidelity": [_share(own, _held) for own in made],
            "exact": [_share(own, lambda s: s.tokens * s.is_exact) for own in made],
            "verbatim": [_share(own, lambda s: len(s.verbatim_ids)) for own in made],
            "loss": [float(loss) for loss in losses],
        }
        figures = context_figures(shares, seed=self.seed)
        kind = (cell.text or "").rpartition(" ")[0] if cell.ratio is None else "fixed ratio"
        row: Row = {
            "kind": kind,
            "series": kind,
            "seconds": seconds,
            **figures,
            "samples": len(made),
            "positions": round(100 * figures["positions_share"]["value"]),
        }
        if cell.ratio is None:
            same = [other for other in rows if other["length"] == cell.length]
            row["fixed_share"] = share_of_fixed(same, figures["fidelity"]["value"])
        return [row]

    def _spans(self, engine: Engine, contexts: Sequence[TokenIds], cell: Cell) -> list[list[Span]]:
        """The spans of each context, by one ratio or by a policy."""
        cut = [verbatim_spans(ids, engine.config) for ids in contexts]
        pieces = [piece for own in cut for piece in own]
        if cell.ratio is not None:
            found = iter(engine.compressor.encode(pieces, ratio=cell.ratio))
            return [[next(found) for _ in own] for own in cut]
        policy = self._policies(cell.length)[cell.text or ""]
        if policy.budget is not None:
            return [engine.adaptive.choose(own, policy=policy) for own in cut]
        found = iter(engine.adaptive.choose(pieces, policy=policy))
        return [[next(found) for _ in own] for own in cut]


def _share(spans: Sequence[Span], count: Callable[[Span], float]) -> float:
    """A count over spans as a share of their tokens."""
    return float(sum(map(count, spans)) / sum(span.tokens for span in spans))


def _held(span: Span) -> float:
    assert span.token_fidelity is not None
    return float(span.token_fidelity.reproduced.sum())


def share_of_fixed(rows: Sequence[Row], fidelity: float) -> float | None:
    """Positions per context token at which fixed ratios have a fidelity.

    Returns:
        By straight lines between the fixed ratios and verbatim (1, 1); the fewest if
        several have it, None if it is below that of the highest ratio.
    """
    fixed = [row for row in rows if row["kind"] == "fixed ratio"]
    points = sorted(
        (float(r["positions_share"]["value"]), float(r["fidelity"]["value"])) for r in fixed
    )
    points = [point for point in points if point[0] < 1] + [(1.0, 1.0)]
    if fidelity < points[0][1]:
        return None
    for (left, low), (right, high) in pairwise(points):
        if low <= fidelity <= high:
            part = (fidelity - low) / (high - low) if high > low else 0.0
            return left + part * (right - left)
    return 1.0
