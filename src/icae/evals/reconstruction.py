"""Autoencoding of held-out text: how much of a context its slots give back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icae.config.types import TokenIds
from icae.engine import Icae
from icae.errors import ConfigError
from icae.evals.contexts import Window, partners
from icae.evals.experiment import Cell, Column, Grid, Panel, Row, plain, require_fit
from icae.evals.memories import (
    STEP_COST,
    Tick,
    TokenScores,
    WideRuntime,
    encode_contexts,
    no_memory,
    score_tasks,
    write_back,
)
from icae.evals.metrics import (
    bleu_counts,
    corpus_bleu_estimate,
    mean_estimate,
    median_estimate,
    prefix_share,
    sentence_bleu,
)
from icae.model.objectives import autoencoding

FIGURES = (
    Column(title="AE loss (nats/token)", key="ae_loss", digits=3),
    Column(title="token accuracy", key="accuracy", digits=3),
    Column(title="greedy BLEU-4", key="bleu", digits=1),
    Column(title="median BLEU-4", key="bleu_median", digits=1),
    Column(title="exact prefix", key="prefix_share", digits=3),
)
PANELS = (
    Panel(key="ae_loss", title="AE loss (nats per token)"),
    Panel(key="accuracy", title="token accuracy, teacher-forced", limits=(0, 1)),
    Panel(key="bleu", title="BLEU-4 of greedy text", limits=(0, None)),
    Panel(key="prefix_share", title="share of tokens before the first error", limits=(0, None)),
)
GREEDY_NOTE = (
    "BLEU-4 (corpus, and median over contexts; sacrebleu) and exact prefix (share of tokens "
    "before the first error) are of free greedy decoding, the rest is teacher-forced."
)


@dataclass(frozen=True, kw_only=True)
class ReconstructionSettings(Grid):
    """Settings of the experiment.

    Attributes:
        greedy: Contexts, of the samples, that are also decoded freely.
    """

    greedy: int = 16

    name = "reconstruction"
    title = "Reconstruction of held-out text from its slots"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_greedy(self.greedy, self.samples)

    def build(self, engine: Icae, windows: Sequence[Window]) -> Reconstruction:
        """The experiment on a loaded model and drawn windows."""
        return Reconstruction(engine, self, windows)


class Reconstruction:
    """Own memory, memory of another text and no memory, by length and ratio.

    Args:
        engine: Adapter and base model.
        settings: Lengths, ratios, numbers of contexts.
        windows: Where the contexts stand.
    """

    columns = (
        Column(title="length", key="length"),
        Column(title="ratio", key="ratio"),
        Column(title="memory", key="kind"),
        Column(title="slots", key="slots"),
        *FIGURES,
    )
    panels = PANELS
    notes = (
        GREEDY_NOTE,
        "Memory of another text: the slots of a context from another document, as many. "
        "No memory: the decoder behind the [AE] token alone. What the slots carry is what "
        "the own memory adds to these two.",
    )

    def __init__(
        self, engine: Icae, settings: ReconstructionSettings, windows: Sequence[Window]
    ) -> None:
        self.engine, self.settings, self.windows = engine, settings, windows
        longest = max(settings.lengths)
        require_fit(engine, 2 * longest + 1)

    def cells(self) -> list[Cell]:
        """For each length the baseline without memory, then every ratio."""
        ratios = (None, *self.settings.ratios)
        return [Cell(length=n, ratio=ratio) for n in self.settings.lengths for ratio in ratios]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        settings = self.settings
        if cell.ratio is None:
            return settings.samples * cell.length
        return reading_cost(cell, settings.samples, passes=2) + writing_cost(cell, settings.greedy)

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The rows of a cell: no memory; or own memory and that of another text."""
        runtime, settings = self.engine.runtime, self.settings
        contexts = [window.context(cell.length) for window in self.windows]
        tasks = [autoencoding(ids) for ids in contexts]
        if cell.ratio is None:
            alone = [no_memory(runtime)] * len(tasks)
            figures = token_figures(score_tasks(runtime, alone, tasks, tick=tick), settings.seed)
            return [{"kind": "none", "series": "no memory", "slots": 0, **figures}]
        memories = encode_contexts(runtime, contexts, ratio=cell.ratio, tick=tick)
        slots = len(memories[0].slots_KD)
        own = token_figures(score_tasks(runtime, memories, tasks, tick=tick), settings.seed)
        sources = [window.document for window in self.windows]
        swapped = [memories[i] for i in partners(sources)]
        other = token_figures(score_tasks(runtime, swapped, tasks, tick=tick), settings.seed)
        written = write_back(runtime, memories[: settings.greedy], tick=tick)
        if written:
            true = contexts[: len(written)]
            own = _merged(own, text_figures(self.engine, true, written, settings.seed))
            swap = partners(sources[: len(written)])
            if len(written) > 1:
                foreign = [written[i] for i in swap]
                other = _merged(other, text_figures(self.engine, true, foreign, settings.seed))
        name = f"{cell.ratio:g}x"
        return [
            {"kind": "own", "series": name, "slots": slots, **own},
            {"kind": "of another text", "series": f"{name}, another text", "slots": slots, **other},
        ]


def check_greedy(greedy: int, samples: int) -> None:
    """Refuse a number of greedily decoded contexts that is out of range."""
    if not 0 <= greedy <= samples:
        raise ConfigError(
            "The number of greedily decoded contexts is out of range.",
            got=str(greedy),
            expected=f"0 to {samples}, the number of samples",
        )


def reading_cost(cell: Cell, samples: int, *, passes: int) -> int:
    """Tokens read for a cell: one encoder pass and some teacher-forced decoder passes."""
    slots = cell.length / (cell.ratio or 1)
    return int(samples * (1 + passes) * (cell.length + slots))


def writing_cost(cell: Cell, greedy: int) -> int:
    """The reading that would take as long as greedy decoding of a cell."""
    rows = max(1, 512 * WideRuntime.WIDTH // cell.length)
    return STEP_COST * cell.length * -(-greedy // rows)


def token_figures(scores: Sequence[TokenScores], seed: int) -> Row:
    """Teacher-forced figures of equally long contexts.

    Args:
        scores: Token scores of each context.
        seed: Seed of the bootstrap.
    """
    losses = [float(np.mean(score.losses_T)) for score in scores]
    shares = [float(np.mean(score.correct_T)) for score in scores]
    return {
        "samples": len(scores),
        "ae_loss": plain(mean_estimate(losses, seed=seed)),
        "accuracy": plain(mean_estimate(shares, seed=seed)),
        "per_context": {"ae_loss": losses, "accuracy": shares},
    }


def text_figures(
    engine: Icae, contexts: Sequence[TokenIds], written: Sequence[Sequence[int]], seed: int
) -> Row:
    """Figures of free greedy decoding.

    Args:
        engine: Holds the tokenizer; BLEU is measured on decoded text.
        contexts: The true token ids of each context.
        written: What the decoder wrote for each.
        seed: Seed of the bootstrap.
    """
    decode = engine.tokenizer.decode
    pairs = [
        (decode(list(ids)), decode(true.tolist()))
        for ids, true in zip(written, contexts, strict=True)
    ]
    counts = [bleu_counts(text, true) for text, true in pairs]
    scores = [sentence_bleu(text, true) for text, true in pairs]
    shares = [prefix_share(ids, true) for ids, true in zip(written, contexts, strict=True)]
    return {
        "greedy_samples": len(written),
        "bleu": plain(corpus_bleu_estimate(counts, seed=seed)),
        "bleu_median": plain(median_estimate(scores, seed=seed)),
        "prefix_share": plain(mean_estimate(shares, seed=seed)),
        "per_context": {"bleu": scores, "prefix_share": shares},
    }


def _merged(tokens: Row, text: Row) -> Row:
    """Both kinds of figures in one row."""
    return {**tokens, **text, "per_context": {**tokens["per_context"], **text["per_context"]}}


def memory_figures(
    engine: Icae,
    contexts: Sequence[TokenIds],
    *,
    ratio: float,
    greedy: int,
    seed: int,
    tick: Tick,
) -> Row:
    """All figures of contexts behind their own memories.

    Args:
        engine: Adapter and base model.
        contexts: Token ids, equally many in each.
        ratio: Context tokens per slot.
        greedy: Contexts that are also decoded freely.
        seed: Seed of the bootstrap.
        tick: Called with tokens that went through the model.
    """
    runtime = engine.runtime
    memories = encode_contexts(runtime, contexts, ratio=ratio, tick=tick)
    tasks = [autoencoding(ids) for ids in contexts]
    figures = token_figures(score_tasks(runtime, memories, tasks, tick=tick), seed)
    written = write_back(runtime, memories[:greedy], tick=tick)
    if written:
        figures = _merged(figures, text_figures(engine, contexts[:greedy], written, seed))
    return {"slots": len(memories[0].slots_KD), **figures}
