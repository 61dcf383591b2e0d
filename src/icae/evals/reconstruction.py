"""Autoencoding of held-out text: how much of a context its slots give back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from icae.config.types import TokenIds
from icae.engine import Engine
from icae.evals.bootstrap import context_figures, mean_figure, median_figure
from icae.evals.contexts import partners
from icae.evals.decoding import (
    NO_MEMORY,
    TokenScores,
    encode_contexts,
    score_tasks,
    write_back,
)
from icae.evals.experiment import (
    PAPER_LENGTHS,
    RATIOS,
    Cell,
    Material,
    Opening,
    TextExperiment,
    check_greedy,
)
from icae.evals.plots import Lines, Plot, lines_of
from icae.evals.tables import Row, columns_of
from icae.evals.text_metrics import bleu_figure, prefix_share, sentence_bleu
from icae.model.objectives import autoencoding

FIGURES = columns_of("ae_loss accuracy bleu bleu_median prefix_share")
GREEDY_NOTE = (
    "BLEU-4 (corpus, and median over contexts; sacrebleu) and exact prefix (share of tokens "
    "before the first error) are of free greedy decoding, the rest is teacher-forced."
)


@dataclass(frozen=True, kw_only=True)
class WritingBack(TextExperiment):
    """An experiment whose contexts are written back.

    Attributes:
        greedy: Contexts, of the samples, that are also decoded freely.
    """

    greedy: int = 16

    paper = PAPER_LENGTHS
    plots: ClassVar[tuple[Plot, ...]] = lines_of("ae_loss accuracy bleu prefix_share")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_greedy(self.greedy, self.samples)


@dataclass(frozen=True, kw_only=True)
class Reconstruction(WritingBack):
    """Own memory, memory of another text and no memory, by length and ratio."""

    name = "reconstruction"
    title = "Reconstruction of held-out text from its slots"
    question = "How much of a text do its slots give back, by length and ratio?"
    quick: ClassVar = {"spans": (1,), "ratios": RATIOS, "samples": 8, "greedy": 2}
    full: ClassVar = {"ratios": RATIOS}
    baseline = True
    columns = columns_of("length ratio kind slots", kind="memory") | FIGURES
    opening = Opening(
        name="reconstruction-by-ratio",
        title="How much of a text comes back?",
        text="Share of the tokens of a held-out text that are written back from its memory, by the "
        "number of tokens that one memory slot stands for; beside it the memory of another text "
        "and none at all, which show what is merely likely.",
        plots=(
            Lines(
                key="accuracy",
                title="token accuracy, by whose memory and length (tokens)",
                along="ratio",
                by=("kind", "length"),
            ),
        ),
    )
    notes = (
        GREEDY_NOTE,
        "Memory of another text: the slots of a context from another document, as many. "
        "No memory: the decoder behind the [AE] token alone. What the slots carry is what "
        "the own memory adds to these two.",
    )

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell: no memory; or own memory and that of another text."""
        engine, contexts = material.engine, self.contexts(material, cell)
        runtime, tasks = engine.runtime, [autoencoding(ids) for ids in contexts]
        if cell.ratio is None:
            scores = score_tasks(runtime, [NO_MEMORY] * len(tasks), tasks)
            figures = token_figures(scores, seed=self.seed)
            return [{"kind": "none", "series": "no memory", "slots": 0, **figures}]
        memories = encode_contexts(runtime, contexts, ratio=cell.ratio)
        written = write_back(runtime, memories[: self.greedy])
        sources = [window.document for window in material.windows]
        made = []
        for kind, others in (("own", range(len(sources))), ("of another text", partners(sources))):
            scores = score_tasks(runtime, [memories[i] for i in others], tasks)
            # One text has no other to be compared with.
            swap = partners(sources[: len(written)]) if len(written) > 1 else []
            texts = written if kind == "own" else [written[i] for i in swap]
            made.append(
                {
                    "kind": kind,
                    "series": cell.times + ("" if kind == "own" else ", another text"),
                    "slots": memories[0].positions,
                    **written_figures(engine, contexts, scores, texts, seed=self.seed),
                }
            )
        return made


def token_figures(scores: Sequence[TokenScores], *, seed: int) -> Row:
    """Teacher-forced figures of equally long contexts."""
    losses = [float(np.mean(score.losses_T)) for score in scores]
    shares = [float(np.mean(score.correct_T)) for score in scores]
    figures = context_figures({"ae_loss": losses, "accuracy": shares}, seed=seed)
    return {"samples": len(scores), **figures}


def text_figures(
    engine: Engine, contexts: Sequence[TokenIds], written: Sequence[Sequence[int]], *, seed: int
) -> Row:
    """Figures of free greedy decoding.

    Args:
        engine: Holds the tokenizer; BLEU is measured on decoded text.
        contexts: The true token ids of each context, those that were written first.
        written: What the decoder wrote for each.
        seed: Seed of the bootstrap.
    """
    decode, true = engine.tokenizer.decode, contexts[: len(written)]
    pairs = [(decode(list(w)), decode(t.tolist())) for w, t in zip(written, true, strict=True)]
    scores = [sentence_bleu(text, reference) for text, reference in pairs]
    shares = [prefix_share(w, t) for w, t in zip(written, true, strict=True)]
    return {
        "greedy_samples": len(written),
        "bleu": bleu_figure(pairs, seed=seed),
        "bleu_median": median_figure(scores, seed=seed),
        "prefix_share": mean_figure(shares, seed=seed),
        "per_context": {"bleu": scores, "prefix_share": shares},
    }


def written_figures(
    engine: Engine,
    contexts: Sequence[TokenIds],
    scores: Sequence[TokenScores],
    written: Sequence[Sequence[int]],
    *,
    seed: int,
) -> Row:
    """Teacher-forced figures, and those of free decoding where there is any."""
    row = token_figures(scores, seed=seed)
    return joined(row, text_figures(engine, contexts, written, seed=seed)) if written else row


def joined(row: Row, more: Row) -> Row:
    """Two rows in one, with the figures by context of both."""
    return {**row, **more, "per_context": {**row["per_context"], **more["per_context"]}}
