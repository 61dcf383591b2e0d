"""Many spans: how well their slots together stand for the context, in raw tokens.

Source: Ge et al. 2024, section 3.3 (concatenated memories).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icae.engine import Icae
from icae.evals.contexts import Window
from icae.evals.continuation import (
    ContinuationSettings,
    continuation_figures,
    slot_losses,
    stored_full,
    token_losses,
)
from icae.evals.experiment import Axis, Cell, Column, Panel, Row, plain, require_fit
from icae.evals.memories import Tick, encode_contexts
from icae.evals.metrics import Estimate, interval, resample

BY_SPANS = Axis(key="spans", label="spans")


@dataclass(frozen=True, kw_only=True)
class MultiSpanSettings(ContinuationSettings):
    """Settings of the experiment; lengths are whole numbers of spans."""

    samples: int = 32

    name = "multi-span"
    title = "Perplexity behind many spans of slots, in raw tokens"

    def build(self, engine: Icae, windows: Sequence[Window]) -> MultiSpan:
        """The experiment on a loaded model and drawn windows."""
        return MultiSpan(engine, self, windows)


class MultiSpan:
    """Slots of 2..16 spans against the last raw tokens of the same context.

    Args:
        engine: Adapter and base model.
        settings: Lengths, ratios, numbers of contexts.
        windows: Contexts and what follows them.
    """

    columns = (
        Column(title="spans", key="spans"),
        Column(title="length", key="length"),
        Column(title="ratio", key="ratio"),
        Column(title="behind", key="kind"),
        Column(title="positions", key="positions"),
        Column(title="perplexity", key="perplexity", digits=2),
        Column(title="perplexity / full", key="over_full", digits=3),
        Column(title="equal to raw tokens", key="raw_equal", digits=1),
        Column(title="raw tokens a position", key="gain", digits=2),
    )
    panels = (
        Panel(key="perplexity", title="perplexity of the continuation", axis=BY_SPANS),
        Panel(
            key="over_full",
            title="perplexity / perplexity behind the full context",
            level=1.0,
            axis=BY_SPANS,
        ),
        Panel(key="raw_equal", title="last raw tokens of equal perplexity", axis=BY_SPANS),
        Panel(
            key="gain",
            title="raw tokens of equal perplexity a position",
            level=1.0,
            axis=BY_SPANS,
        ),
    )
    notes = (
        "Scored as in `icae eval continuation`: every row reads the token after the context and "
        "is scored on the same tokens after that.",
        "Equal to raw tokens: how many of the context's last raw tokens give the perplexity that "
        "the slots give; measured behind 0, 1, 2, 4, ... and all tokens, in between on a straight "
        "line over log(1 + tokens). At the context's length it stands for that many or more. "
        "A position: the same, for each decoder position of slots and [LM] tokens.",
    )

    def __init__(
        self, engine: Icae, settings: MultiSpanSettings, windows: Sequence[Window]
    ) -> None:
        self.engine, self.settings, self.windows = engine, settings, windows
        require_fit(engine, settings.window + 1)

    def cells(self) -> list[Cell]:
        """For each length the raw tokens, then every ratio."""
        ratios = (None, *self.settings.ratios)
        return [Cell(length=n, ratio=ratio) for n in self.settings.lengths for ratio in ratios]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        samples, after = self.settings.samples, self.settings.tokens + 1
        if cell.ratio is None:
            return samples * sum(size + after for size in tail_sizes(cell.length))
        return samples * int(cell.length + 2 * cell.length / cell.ratio + after)

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The rows of a cell: full and no context; or slots."""
        after, seed = self.settings.tokens + 1, self.settings.seed
        contexts = [window.context(cell.length, after=after) for window in self.windows]
        following = [window.context(after) for window in self.windows]
        spans = -(-cell.length // self.engine.config.span_length)
        if cell.ratio is None:
            sizes = tail_sizes(cell.length)
            behind = []
            for size in sizes:
                tails = [ids[len(ids) - size :] for ids in contexts]
                behind.append(token_losses(self.engine.runtime, tails, following, tick=tick))
            none, full = behind[0], behind[-1]
            curve = {"tails": sizes, "tail_losses": np.stack(behind, axis=1).tolist()}
            return [
                {"spans": spans, "kind": kind, "series": kind, "positions": size, **figures}
                for kind, size, figures in (
                    (
                        "full context",
                        cell.length,
                        curve | continuation_figures(full, full, seed=seed),
                    ),
                    ("no context", 0, continuation_figures(none, full, seed=seed)),
                )
            ]
        memories = encode_contexts(self.engine.runtime, contexts, ratio=cell.ratio, tick=tick)
        losses = slot_losses(self.engine.runtime, memories, following, tick=tick)
        positions = len(memories[0].slots_KD) + self._markers
        stored = next(r for r in rows if r["length"] == cell.length and "tails" in r)
        equal = equal_tokens(stored["tails"], np.array(stored["tail_losses"]), losses, seed=seed)
        full = stored_full(rows, cell.length)
        return [
            {
                "spans": spans,
                "kind": "slots",
                "series": f"{cell.ratio:g}x slots",
                "positions": positions,
                **continuation_figures(losses, full, seed=seed),
                "raw_equal": plain(equal),
                "gain": {end: value / positions for end, value in plain(equal).items()},
            }
        ]

    @property
    def _markers(self) -> int:
        """Decoder positions of the objective tokens around a memory."""
        return self.engine.config.front + self.engine.config.objective_tokens


def tail_sizes(length: int) -> list[int]:
    """0, 1, 2, 4, ... below a length, and the length."""
    return [0, *(2**n for n in range(length.bit_length()) if 2**n < length), length]


def equal_tokens(
    sizes: Sequence[int],
    tail_losses: NDArray[np.float64],
    losses: NDArray[np.float64],
    *,
    seed: int,
) -> Estimate:
    """How many last raw tokens give a mean loss, with its interval over contexts.

    Args:
        sizes: Numbers of raw tokens, rising from 0.
        tail_losses: Loss of each context behind that many, [contexts, sizes].
        losses: Loss of each context behind what is compared with them.
        seed: Seed of the bootstrap.
    """
    picks = resample(len(losses), seed=seed)
    curves, wanted = tail_losses[picks].mean(axis=1), losses[picks].mean(axis=1)
    crossings = [crossing(sizes, c, float(w)) for c, w in zip(curves, wanted, strict=True)]
    value = crossing(sizes, tail_losses.mean(axis=0), float(losses.mean()))
    return interval(value, np.array(crossings))


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
