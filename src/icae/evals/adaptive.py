"""Adaptive compression against fixed ratios: what is held for how many decoder positions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from icae.compression.adaptive import FidelityPolicy
from icae.compression.compressor import verbatim_spans
from icae.compression.refinement import RefineConfig
from icae.config.types import TokenIds
from icae.engine import Icae
from icae.errors import ConfigError
from icae.evals.contexts import Window
from icae.evals.continuation import slot_losses
from icae.evals.experiment import Axis, Cell, Column, Grid, Panel, Row, plain, require_fit
from icae.evals.memories import Tick, span_memory
from icae.evals.metrics import mean_estimate
from icae.memory import Span

CONTINUATION = 32
"""Scored tokens of the true continuation."""
STEP_COST = 3
"""Forward passes that take about as long as one refinement step."""
BY_POSITIONS = Axis(key="positions", label="decoder positions per 100 context tokens")


@dataclass(frozen=True, kw_only=True)
class AdaptiveSettings(Grid):
    """Settings of the experiment; `ratios` are the fixed ones, and those to choose from.

    Attributes:
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

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = [share for share in self.budgets if not 0 < share <= 1]
        if wrong:
            raise ConfigError(
                "A budget is out of range.",
                got=", ".join(map(str, wrong)),
                expected="above 0, at most 1 (a share of the context tokens)",
            )
        for case in self.cases():
            case.policy(100, self)  # checks the values

    @property
    def window(self) -> int:
        """The longest context, the token that leads over, and the scored tokens."""
        return max(self.lengths) + 1 + CONTINUATION

    def cases(self) -> list[Case]:
        """Every policy, in the order in which they are measured."""
        return [
            *(Case(kind="budget", value=share) for share in self.budgets),
            *(Case(kind="min fidelity", value=target) for target in self.min_fidelities),
            *(Case(kind="min fidelity, refined", value=target) for target in self.refined),
        ]

    def fixed(self) -> dict[str, Any]:
        """The settings besides lengths, ratios, policies and seed."""
        rest = super().fixed()
        for key in ("min_fidelities", "budgets", "refined"):
            del rest[key]
        return rest

    def build(self, engine: Icae, windows: Sequence[Window]) -> Adaptive:
        """The experiment on a loaded model and drawn windows."""
        return Adaptive(engine, self, windows)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One policy of the experiment.

    Attributes:
        kind: ``budget``, ``min fidelity`` or ``min fidelity, refined``.
        value: Share of the context tokens, or fidelity.
    """

    kind: str
    value: float

    @property
    def text(self) -> str:
        """Its name as the text of a cell."""
        return f"{self.kind} {self.value:g}"

    def policy(self, tokens: int, settings: AdaptiveSettings) -> FidelityPolicy:
        """The policy for contexts of a length.

        Args:
            tokens: Context tokens.
            settings: Ratios to choose from, and refinement steps.

        Raises:
            ConfigError: If its value is out of range.
        """
        if self.kind == "budget":
            return FidelityPolicy(budget=max(1, int(self.value * tokens)), ratios=settings.ratios)
        refine = RefineConfig(steps=settings.steps) if self.kind.endswith("refined") else None
        return FidelityPolicy(min_fidelity=self.value, ratios=settings.ratios, refine=refine)


class Adaptive:
    """Fixed ratios, budgets and fidelities on the same contexts.

    Args:
        engine: Adapter and base model.
        settings: Lengths, ratios, policies, number of contexts.
        windows: Contexts and what follows them.

    Raises:
        InputError: If a length does not fit the decoder.
    """

    columns = (
        Column(title="length", key="length"),
        Column(title="policy", key="text"),
        Column(title="positions per context token", key="positions_share", digits=3),
        Column(title="fidelity", key="fidelity", digits=3),
        Column(title="fixed ratios need", key="fixed_share", digits=3),
        Column(title="known exact", key="exact", digits=3),
        Column(title="verbatim", key="verbatim", digits=3),
        Column(title="next-token loss (nats/token)", key="loss", digits=3),
        Column(title="seconds a context", key="seconds", digits=2),
    )
    panels = (
        Panel(key="fidelity", title="fidelity, teacher-forced", limits=(0, 1), axis=BY_POSITIONS),
        Panel(key="loss", title="loss of the continuation (nats per token)", axis=BY_POSITIONS),
    )
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

    def __init__(self, engine: Icae, settings: AdaptiveSettings, windows: Sequence[Window]) -> None:
        self.engine, self.settings, self.windows = engine, settings, windows
        self._cases = {case.text: case for case in settings.cases()}
        require_fit(engine, 2 * settings.window)

    def cells(self) -> list[Cell]:
        """For each length the fixed ratios, then every policy."""
        return [
            cell
            for length in self.settings.lengths
            for cell in (
                *(Cell(length=length, ratio=r, text=f"fixed {r:g}x") for r in self.settings.ratios),
                *(Cell(length=length, text=text) for text in self._cases),
            )
        ]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        tokens = self.settings.samples * cell.length
        if cell.ratio is not None:
            return 3 * tokens
        rungs = len(self.settings.ratios)
        steps = self.settings.steps if (cell.text or "").partition("refined")[1] else 0
        return rungs * tokens * (3 + STEP_COST * steps)

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The row of a cell."""
        after = CONTINUATION + 1
        contexts = [window.context(cell.length, after=after) for window in self.windows]
        begin = time.perf_counter()
        made = self._segments(contexts, cell)
        seconds = (time.perf_counter() - begin) / len(contexts)
        tick(self.cost(cell) // 2)
        following = [window.context(after) for window in self.windows]
        memories = [span_memory(self.engine.runtime, segments) for segments in made]
        losses = slot_losses(self.engine.runtime, memories, following, tick=tick)
        figures = self._figures(made, losses)
        kind = "fixed ratio" if cell.ratio is not None else self._cases[cell.text or ""].kind
        own = {
            "kind": kind,
            "series": kind,
            "seconds": seconds,
            **figures,
        }
        if cell.ratio is None:
            own["fixed_share"] = share_of_fixed(
                [row for row in rows if row["length"] == cell.length],
                figures["fidelity"]["value"],
            )
        return [own]

    def _segments(self, contexts: Sequence[TokenIds], cell: Cell) -> list[list[Span]]:
        """The segments of each context, by one ratio or by a policy."""
        span_length = self.engine.config.span_length
        cut = [verbatim_spans(ids, span_length=span_length) for ids in contexts]
        pieces = [piece for own in cut for piece in own]
        if cell.ratio is not None:
            found = iter(self.engine.compressor.encode(pieces, ratio=cell.ratio))
            return [[next(found) for _ in own] for own in cut]
        case, adaptive = self._cases[cell.text or ""], self.engine.adaptive
        policy = case.policy(cell.length, self.settings)
        if policy.budget is not None:
            return [adaptive.choose(own, policy=policy) for own in cut]
        found = iter(adaptive.choose(pieces, policy=policy))
        return [[next(found) for _ in own] for own in cut]

    def _figures(self, made: Sequence[Sequence[Span]], losses: Any) -> Row:
        """What the segments of each context cost and hold."""
        seed = self.settings.seed
        shares: dict[str, list[float]] = {
            "positions_share": [_share(own, lambda s: s.positions) for own in made],
            "fidelity": [_share(own, _held) for own in made],
            "exact": [_share(own, lambda s: s.tokens * s.is_exact) for own in made],
            "verbatim": [_share(own, lambda s: len(s.verbatim_ids)) for own in made],
            "loss": [float(loss) for loss in losses],
        }
        row: Row = {key: plain(mean_estimate(found, seed=seed)) for key, found in shares.items()}
        row["samples"] = len(made)
        row["positions"] = round(100 * row["positions_share"]["value"])
        row["per_context"] = shares
        return row


def _share(segments: Sequence[Span], count: Any) -> float:
    """A count over segments as a share of their tokens."""
    tokens = sum(segment.tokens for segment in segments)
    return float(sum(count(segment) for segment in segments) / tokens)


def _held(segment: Span) -> float:
    assert segment.token_fidelity is not None
    return float(segment.token_fidelity.reproduced.sum())


def share_of_fixed(rows: Sequence[Row], fidelity: float) -> float | None:
    """Positions per context token at which fixed ratios have a fidelity.

    Args:
        rows: Rows of one length; those of fixed ratios are looked at.
        fidelity: The fidelity.

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
