"""Which slot holds what: the loss of each context token when one slot says nothing.

Shape legend: K slots, T context tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.config.spans import chunk_of_tokens, slot_count
from icae.config.types import FloatArray, TokenIds
from icae.decode.torch import TorchRuntime
from icae.engine import Icae
from icae.errors import ConfigError
from icae.evals.contexts import Window
from icae.evals.experiment import Cell, Column, Grid, Row, plain, require_fit
from icae.evals.memories import ContextMemory, Tick, encode_contexts, score_tasks
from icae.evals.metrics import mean_estimate
from icae.evals.panels import HeatPanel
from icae.evals.slot_pages import slot_texts
from icae.model.objectives import autoencoding

Drops = NDArray[np.float64]
"""Log-probability (nats) that each token loses when each slot is replaced, [K, T]."""


@dataclass(frozen=True, kw_only=True)
class SlotsSettings(Grid):
    """Settings of the experiment.

    Attributes:
        examples: Contexts, of the samples, whose text the HTML page shows.
    """

    samples: int = 16
    examples: int = 2

    name = "slots"
    title = "Which slot holds what"
    exhibits = (slot_texts,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.examples <= self.samples:
            raise ConfigError(
                "The number of examples is out of range.",
                got=str(self.examples),
                expected=f"0 to {self.samples}, the number of samples",
            )

    def build(self, engine: Icae, windows: Sequence[Window]) -> Slots:
        """The experiment on a loaded model and drawn windows."""
        return Slots(engine, self, windows)


class Slots:
    """Every slot of every context in turn replaced by the mean slot, by length and ratio.

    Args:
        engine: Adapter and base model.
        settings: Lengths, ratios, numbers of contexts.
        windows: Where the contexts stand.
    """

    columns = (
        Column(title="length", key="length"),
        Column(title="ratio", key="ratio"),
        Column(title="slots", key="slots"),
        Column(title="own chunk", key="locality", digits=3),
        Column(title="own chunk, evenly spread", key="chance", digits=3),
        Column(title="own or next chunk", key="near", digits=3),
        Column(title="before", key="before", digits=3),
        Column(title="after", key="after", digits=3),
        Column(title="nats lost, own chunk", key="own_drop", digits=3),
        Column(title="nats lost, other chunks", key="other_drop", digits=3),
        Column(title="AE loss (nats/token)", key="ae_loss", digits=3),
    )
    notes = (
        "A slot is replaced by the mean of all slots of all contexts at that length and ratio. "
        "What each token of the context then loses in log-probability (teacher-forced behind "
        "[AE]) is that slot's hold on it.",
        "Own chunk is the locality score: the share of the absolute changes that falls on the "
        "slot's own chunk of the context; evenly spread, it would be that chunk's share of the "
        "tokens. Before and after: the shares that fall on earlier and later chunks.",
        "Nats lost: mean over slots and tokens, in and outside the own chunk.",
    )

    def __init__(self, engine: Icae, settings: SlotsSettings, windows: Sequence[Window]) -> None:
        self.engine, self.settings, self.windows = engine, settings, windows
        require_fit(engine, 2 * max(settings.lengths) + 1)

    @property
    def panels(self) -> tuple[HeatPanel, ...]:
        """A heat map for each length and ratio."""
        return tuple(
            HeatPanel(
                key="drops",
                series=_series(cell),
                title=f"{_series(cell)}: log-probability lost (nats)",
                across="token of the context",
                down="slot replaced by the mean slot",
            )
            for cell in self.cells()
        )

    def cells(self) -> list[Cell]:
        """Every length and ratio."""
        return [
            Cell(length=length, ratio=ratio)
            for length in self.settings.lengths
            for ratio in self.settings.ratios
        ]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        assert cell.ratio is not None
        slots = slot_count(cell.length, cell.ratio)
        return self.settings.samples * (slots + 2) * (cell.length + slots)

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The row of a cell."""
        assert cell.ratio is not None
        runtime, settings = self.engine.runtime, self.settings
        contexts = [window.context(cell.length) for window in self.windows]
        memories = encode_contexts(runtime, contexts, ratio=cell.ratio, tick=tick)
        mean_D = np.concatenate([m.slots_KD for m in memories]).mean(axis=0)
        measured = [
            slot_drops(runtime, memory, ids, mean_D, tick=tick)
            for memory, ids in zip(memories, contexts, strict=True)
        ]
        drops = [drops_KT for drops_KT, _ in measured]
        own_KT = own_chunks(memories[0].spans)
        examples = [
            self._example(ids, drops_KT, own_KT)
            for ids, drops_KT in zip(contexts[: settings.examples], drops, strict=False)
        ]
        losses = [loss for _, loss in measured]
        return [
            {
                "kind": "slots",
                "series": _series(cell),
                "slots": len(own_KT),
                "samples": len(drops),
                **locality_figures(drops, own_KT, seed=settings.seed),
                "ae_loss": plain(mean_estimate(losses, seed=settings.seed)),
                "drops": _rounded(np.mean(drops, axis=0)),
                "examples": examples,
            }
        ]

    def _example(self, ids: TokenIds, drops_KT: Drops, own_KT: NDArray[np.bool_]) -> dict[str, Any]:
        """A context with what each slot holds of it, for the page."""
        return {
            "tokens": [self.engine.tokenizer.decode([token]) for token in ids.tolist()],
            "own": [int(np.argmax(own_KT[:, t])) for t in range(len(ids))],
            "drops": _rounded(drops_KT),
        }


def slot_drops(
    runtime: TorchRuntime,
    memory: ContextMemory,
    ids: TokenIds,
    mean_D: FloatArray,
    *,
    tick: Tick,
) -> tuple[Drops, float]:
    """What each token loses in log-probability when each slot is replaced.

    Args:
        runtime: Holds the decoder.
        memory: The slots of a context.
        ids: Its token ids [T].
        mean_D: What a slot is replaced by.
        tick: Called with the tokens of each forward pass.

    Returns:
        Nats lost [K, T], positive where the slot helps, and the AE loss (nats per token)
        behind all slots.
    """
    task, count = autoencoding(ids), len(memory.slots_KD)
    without = [memory] * (count + 1)
    for k in range(count):
        slots_KD = memory.slots_KD.copy()
        slots_KD[k] = mean_D
        without[k + 1] = replace(memory, slots_KD=slots_KD)
    intact, *rest = score_tasks(runtime, without, [task] * (count + 1), tick=tick)
    drops_KT = np.stack([score.losses_T for score in rest]) - intact.losses_T
    return drops_KT, float(intact.losses_T.mean())


def own_chunks(spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Whether a token lies in a slot's own chunk, [K, T].

    Args:
        spans: (context tokens, slots) of each span, in order.
    """
    chunk_T = chunk_places(spans)
    slots = sum(count for _, count in spans)
    return np.asarray(chunk_T == np.arange(slots)[:, None])


def chunk_places(spans: Sequence[tuple[int, int]]) -> TokenIds:
    """Index of the slot in whose chunk each token lies, [T]."""
    parts, before = [], 0
    for length, count in spans:
        parts.append(chunk_of_tokens(length, count) + before)
        before += count
    return np.concatenate(parts)


def locality_figures(drops: Sequence[Drops], own_KT: NDArray[np.bool_], *, seed: int) -> Row:
    """Where the changes fall, over contexts of one length.

    Args:
        drops: Nats lost [K, T] of each context.
        own_KT: Whether a token lies in the slot's own chunk.
        seed: Seed of the bootstrap.
    """
    slots = len(own_KT)
    distance_KT = np.argmax(own_KT, axis=0) - np.arange(slots)[:, None]
    masks = {
        "locality": own_KT,
        "near": abs(distance_KT) <= 1,
        "before": distance_KT < 0,
        "after": distance_KT > 0,
    }
    shares = {
        key: [mass_share(drops_KT, mask_KT) for drops_KT in drops] for key, mask_KT in masks.items()
    }
    figures = {key: plain(mean_estimate(values, seed=seed)) for key, values in shares.items()}
    lost = {"own_drop": [float(d[own_KT].mean()) for d in drops]}
    if slots > 1:
        lost["other_drop"] = [float(d[~own_KT].mean()) for d in drops]
    figures |= {key: plain(mean_estimate(values, seed=seed)) for key, values in lost.items()}
    chance = float(own_KT.mean())
    return {**figures, "chance": round(chance, 4), "per_context": {"locality": shares["locality"]}}


def mass_share(drops_KT: Drops, mask_KT: NDArray[np.bool_]) -> float:
    """Share of the absolute changes that falls on some tokens (0..1).

    Args:
        drops_KT: Nats lost.
        mask_KT: The tokens, for each slot.

    Returns:
        The share; where nothing changed at all, the share of the tokens.
    """
    mass_KT = np.abs(drops_KT)
    total = mass_KT.sum()
    return float(mass_KT[mask_KT].sum() / total if total > 0 else mask_KT.mean())


def _series(cell: Cell) -> str:
    return f"{cell.length} tokens, {cell.ratio:g}x"


def _rounded(values_KT: Drops) -> list[list[float]]:
    return [[round(float(value), 3) for value in line] for line in values_KT]
