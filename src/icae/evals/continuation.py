"""Text continuation: how well the slots stand for the context when it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from icae.config.types import TokenIds
from icae.decode.torch import TorchRuntime
from icae.engine import Icae
from icae.errors import ConfigError
from icae.evals.contexts import Window
from icae.evals.experiment import (
    Cell,
    Column,
    Experiment,
    Grid,
    Panel,
    Row,
    plain,
    require_fit,
)
from icae.evals.memories import ContextMemory, Tick, encode_contexts, score_tasks
from icae.evals.metrics import mean_estimate, perplexity_estimate
from icae.evals.plain_decoder import plain_losses
from icae.model import PlainRow
from icae.model.objectives import DecoderTask, continuation


@dataclass(frozen=True, kw_only=True)
class ContinuationSettings(Grid):
    """Settings of the experiment.

    Attributes:
        tokens: Scored tokens of the continuation.
    """

    tokens: int = 128

    name = "continuation"
    title = "Perplexity of the continuation behind context and slots"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 1:
            raise ConfigError(
                "The continuation is out of range.", got=str(self.tokens), expected=">= 1 token"
            )

    @property
    def window(self) -> int:
        """The longest context, the token that leads over, and the scored tokens."""
        return max(self.lengths) + 1 + self.tokens

    def build(self, engine: Icae, windows: Sequence[Window]) -> Experiment:
        """The experiment on a loaded model and drawn windows."""
        return Continuation(engine, self, windows)


class Continuation:
    """Full context, slots, the last raw tokens and no context, by length and ratio.

    The token after the context is read by every row and scored in none: without a context
    there would be nothing to predict it from. The `tokens` after it are the same for every
    row, length and ratio.

    Args:
        engine: Adapter and base model.
        settings: Lengths, ratios, numbers of contexts.
        windows: Contexts and what follows them.
    """

    columns = (
        Column(title="length", key="length"),
        Column(title="ratio", key="ratio"),
        Column(title="behind", key="kind"),
        Column(title="positions", key="positions"),
        Column(title="loss (nats/token)", key="loss", digits=3),
        Column(title="perplexity", key="perplexity", digits=2),
        Column(title="perplexity / full", key="over_full", digits=3),
    )
    panels = (
        Panel(key="perplexity", title="perplexity of the continuation"),
        Panel(key="over_full", title="perplexity / perplexity behind the full context", level=1.0),
    )
    notes = (
        "Every row reads the token after the context and is scored on the same tokens after "
        "that, under teacher forcing; they are the same at every length.",
        "Last tokens: as many of the context's last raw tokens as there are slots. "
        "Slots: slots and [LM] token. The other rows have no objective token.",
        "The ratio to the full context is paired: its interval is over contexts.",
    )

    def __init__(
        self, engine: Icae, settings: ContinuationSettings, windows: Sequence[Window]
    ) -> None:
        self.engine, self.settings, self.windows = engine, settings, windows
        require_fit(engine, settings.window + 1)

    def cells(self) -> list[Cell]:
        """For each length the rows without slots, then every ratio."""
        ratios = (None, *self.settings.ratios)
        return [Cell(length=n, ratio=ratio) for n in self.settings.lengths for ratio in ratios]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        samples, after = self.settings.samples, self.settings.tokens + 1
        if cell.ratio is None:
            return samples * (cell.length + 2 * after)
        slots = int(cell.length / cell.ratio)
        return samples * (cell.length + 3 * slots + 2 * after)

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The rows of a cell: full and no context; or slots and last raw tokens."""
        after, seed = self.settings.tokens + 1, self.settings.seed
        contexts = [window.context(cell.length, after=after) for window in self.windows]
        following = [window.context(after) for window in self.windows]
        if cell.ratio is None:
            full = token_losses(self.engine.runtime, contexts, following, tick=tick)
            empty = [ids[:0] for ids in contexts]
            nothing = token_losses(self.engine.runtime, empty, following, tick=tick)
            return [
                {"kind": "full context", "series": "full context", "positions": cell.length}
                | continuation_figures(full, full, seed=seed),
                {"kind": "no context", "series": "no context", "positions": 0}
                | continuation_figures(nothing, full, seed=seed),
            ]
        full = stored_full(rows, cell.length)
        memories = encode_contexts(self.engine.runtime, contexts, ratio=cell.ratio, tick=tick)
        slots = slot_losses(self.engine.runtime, memories, following, tick=tick)
        count = len(memories[0].slots_KD)
        ends = [ids[-count:] for ids in contexts]
        last = token_losses(self.engine.runtime, ends, following, tick=tick)
        name = f"{cell.ratio:g}x"
        return [
            {"kind": "slots", "series": f"{name} slots", "positions": count + 1}
            | continuation_figures(slots, full, seed=seed),
            {"kind": "last tokens", "series": f"{name}, as many last tokens", "positions": count}
            | continuation_figures(last, full, seed=seed),
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
        "loss": plain(mean_estimate(losses, seed=seed)),
        "perplexity": plain(perplexity_estimate(losses, seed=seed)),
        "over_full": plain(perplexity_estimate(losses - full, seed=seed)),
        "per_context": {"loss": losses.tolist()},
    }


def token_losses(
    runtime: TorchRuntime,
    contexts: Sequence[TokenIds],
    following: Sequence[TokenIds],
    *,
    tick: Tick,
) -> NDArray[np.float64]:
    """Mean loss (nats) of what follows each context, behind its raw tokens; float64 [contexts].

    Args:
        runtime: Holds the decoder.
        contexts: The raw tokens of each context; may be none.
        following: The token after each context, then the tokens to score.
        tick: Called with the tokens of each forward pass.
    """
    rows = [
        PlainRow(ids=np.concatenate([context, ids]), scored=len(ids) - 1)
        for context, ids in zip(contexts, following, strict=True)
    ]
    return np.array([x.mean() for x in plain_losses(runtime, rows, tick=tick)])


def slot_losses(
    runtime: TorchRuntime,
    memories: Sequence[ContextMemory],
    following: Sequence[TokenIds],
    *,
    tick: Tick,
) -> NDArray[np.float64]:
    """Mean loss (nats) of what follows each context, behind its slots and [LM].

    Args:
        runtime: Holds the decoder.
        memories: The memory of each context.
        following: The token after each context, then the tokens to score.
        tick: Called with the tokens of each forward pass.

    Returns:
        Losses, float64 [contexts].
    """
    tasks = [led_continuation(ids) for ids in following]
    scores = score_tasks(runtime, memories, tasks, tick=tick)
    return np.array([score.losses_T.mean() for score in scores])


def led_continuation(ids: TokenIds) -> DecoderTask:
    """The continuation task whose first token is read but not scored.

    Args:
        ids: The token after the context, then the tokens to score.
    """
    return replace(continuation(ids), unscored=1)


def stored_full(rows: Sequence[Row], length: int) -> NDArray[np.float64]:
    """Losses behind the full context, measured before.

    Args:
        rows: Rows of the cells before.
        length: Context tokens.
    """
    found = next(r for r in rows if r["length"] == length and r["kind"] == "full context")
    return np.array(found["per_context"]["loss"])
