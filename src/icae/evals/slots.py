"""Which slot holds what: the loss of each context token when one slot says nothing.

Shape legend: K slots, T context tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from icae.config.parsing import check
from icae.config.spans import chunk_of_tokens
from icae.config.types import FloatArray, TokenIds
from icae.decode.torch import TorchRuntime
from icae.evals.bootstrap import mean_figure
from icae.evals.decoding import ContextMemory, encode_contexts, score_tasks
from icae.evals.experiment import RATIOS, Cell, Material, TextExperiment
from icae.evals.plots import HeatMaps
from icae.evals.tables import Row, columns_of
from icae.model.objectives import autoencoding

Drops = NDArray[np.float64]
"""Log-probability (nats) that each token loses when each slot is replaced, [K, T]."""


@dataclass(frozen=True, kw_only=True)
class Slots(TextExperiment):
    """Every slot of every context in turn replaced by the mean slot, by length and ratio.

    Attributes:
        examples: Contexts, of the samples, whose text and changes stand in the result file.
    """

    samples: int = 16
    examples: int = 2

    name = "slots"
    title = "Which slot holds what"
    question = "Which slot holds what?"
    quick: ClassVar = {"ratios": (4.0,), "samples": 3, "examples": 1}
    full: ClassVar = {"ratios": RATIOS[:3], "samples": 64}
    columns = columns_of(
        "length ratio slots locality chance near before after own_drop other_drop ae_loss"
    )
    plots = (
        HeatMaps(
            key="drops",
            title="log-probability lost (nats)",
            across="token of the context",
            down="slot replaced by the mean slot",
        ),
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

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = f"0 to {self.samples}, the number of samples"
        shown = 0 <= self.examples <= self.samples
        check(shown, "The number of examples is out of range.", self.examples, expected)

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The row of a cell."""
        engine, contexts = material.engine, self.contexts(material, cell)
        memories = encode_contexts(engine.runtime, contexts, ratio=cell.known_ratio)
        mean = np.concatenate([memory.numbers for memory in memories]).mean(axis=0)
        measured = [
            slot_drops(engine.runtime, memory, ids, mean)
            for memory, ids in zip(memories, contexts, strict=True)
        ]
        drops = [drops_KT for drops_KT, _ in measured]
        own_KT = own_chunks(memories[0].spans)
        decode = engine.tokenizer.decode
        examples: list[dict[str, Any]] = [
            {
                "tokens": [decode([token]) for token in ids.tolist()],
                "own": np.argmax(own_KT, axis=0).tolist(),
                "drops": np.round(drops_KT, 3).tolist(),
            }
            for ids, drops_KT in zip(contexts[: self.examples], drops, strict=False)
        ]
        return [
            {
                "kind": "slots",
                "series": f"{cell.length} tokens, {cell.times}",
                "slots": len(own_KT),
                "samples": len(drops),
                **locality_figures(drops, own_KT, seed=self.seed),
                "ae_loss": mean_figure([loss for _, loss in measured], seed=self.seed),
                "drops": np.round(np.mean(drops, axis=0), 3).tolist(),
                "examples": examples,
            }
        ]


def slot_drops(
    runtime: TorchRuntime, memory: ContextMemory, ids: TokenIds, mean: FloatArray
) -> tuple[Drops, float]:
    """What each token loses in log-probability when each slot is replaced.

    Args:
        runtime: Holds the decoder.
        memory: The slots of a context.
        ids: Its token ids [T].
        mean: What a slot is replaced by.

    Returns:
        Nats lost [K, T], positive where the slot helps, and the AE loss (nats per token)
        behind all slots.
    """
    task, count = autoencoding(ids), memory.positions
    without = [memory, *(memory.changed(k, mean) for k in range(count))]
    intact, *rest = score_tasks(runtime, without, [task] * (count + 1))
    drops_KT = np.stack([score.losses_T for score in rest]) - intact.losses_T
    return drops_KT, float(intact.losses_T.mean())


def own_chunks(spans: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Whether a token lies in a slot's own chunk, [K, T]."""
    parts, before = [], 0
    for length, count in spans:
        parts.append(chunk_of_tokens(length, count) + before)
        before += count
    return np.asarray(np.concatenate(parts) == np.arange(before)[:, None])


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
    values = {
        key: [mass_share(drops_KT, mask_KT) for drops_KT in drops] for key, mask_KT in masks.items()
    }
    values["own_drop"] = [float(d[own_KT].mean()) for d in drops]
    if slots > 1:
        values["other_drop"] = [float(d[~own_KT].mean()) for d in drops]
    return {
        **{key: mean_figure(own, seed=seed) for key, own in values.items()},
        "chance": round(float(own_KT.mean()), 4),
        "per_context": {"locality": values["locality"]},
    }


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
