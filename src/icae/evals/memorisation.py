"""Memorisation study: what goes wrong where a text is written back freely, by text type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icae.engine import Icae
from icae.errors import ConfigError
from icae.evals.contexts import Window
from icae.evals.experiment import Cell, Column, Grid, Row, plain, require_fit
from icae.evals.meanings import EmbeddingLikeness
from icae.evals.memories import Tick, encode_contexts, write_back
from icae.evals.memorisation_pages import side_by_side
from icae.evals.metrics import ratio_estimate
from icae.evals.panels import StackPanel
from icae.evals.reconstruction import reading_cost, writing_cost
from icae.evals.word_errors import (
    CLASSES,
    TEXT_TYPES,
    Pair,
    Word,
    aligned,
    split_words,
    text_type,
)

QUARTERS = 4
CRITICAL = ("number", "name", "code")


@dataclass(frozen=True, kw_only=True)
class MemorisationSettings(Grid):
    """Settings of the experiment.

    Attributes:
        examples: Contexts of each text type that the HTML page shows side by side.
    """

    samples: int = 48
    examples: int = 3

    name = "memorisation"
    title = "What is wrong where text is written back"
    exhibits = (side_by_side,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples < 0:
            raise ConfigError(
                "The number of examples is out of range.", got=str(self.examples), expected=">= 0"
            )

    def build(self, engine: Icae, windows: Sequence[Window]) -> Memorisation:
        """The experiment on a loaded model and drawn windows."""
        return Memorisation(engine, self, windows)


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """One context beside what was written back of it.

    Attributes:
        true: Words of the source.
        written: Words that the decoder wrote.
        pairs: Their alignment.
    """

    true: Sequence[Word]
    written: Sequence[Word]
    pairs: Sequence[Pair]

    def wrong(self, error: str) -> int:
        """Number of errors of a class."""
        return sum(pair.error == error for pair in self.pairs)

    def places(self, kind: str) -> list[int]:
        """Indices of the true words of a kind."""
        return [i for i, word in enumerate(self.true) if word.kind == kind]

    def right(self) -> set[int]:
        """Indices of the true words that came back as they stand."""
        return {pair.true for pair in self.pairs if pair.error is None and pair.true is not None}


class Memorisation:
    """Errors of free greedy reconstruction by class, text type, length and ratio.

    Args:
        engine: Adapter and base model.
        settings: Lengths, ratios, numbers of contexts.
        windows: Where the contexts stand.
    """

    columns = (
        Column(title="length", key="length"),
        Column(title="ratio", key="ratio"),
        Column(title="text", key="kind"),
        Column(title="contexts", key="samples"),
        Column(title="words right", key="right", digits=3),
        *(Column(title=f"{kind}s right", key=f"{kind}_right", digits=3) for kind in CRITICAL[:2]),
        Column(title="code right", key="code_right", digits=3),
        *(
            Column(title=f"right in quarter {n + 1}", key=f"quarter_{n + 1}", digits=3)
            for n in range(QUARTERS)
        ),
        *(Column(title=error, key=error.replace(" ", "_"), digits=1) for error in CLASSES),
    )
    panels = (
        StackPanel(
            keys={error.replace(" ", "_"): error for error in CLASSES},
            title="errors per 100 words of the source",
        ),
    )
    notes = (
        "Free greedy decoding, aligned with the source word by word (cheapest path; a word is "
        "what stands between white space). The classes are errors per 100 words of the source. "
        "Number, name, code: either word of a pair looks like one; form: only case or "
        "punctuation differ; like meaning: the model's input embeddings of the two words are "
        "closer than 99.5 % of random pairs of words from these texts (so antonyms are in it, too; "
        "words of grammar are not); other: the rest; omission and insertion: words "
        "without a partner.",
        "Words, numbers, names and code right: share of those in the source that came back as "
        "they stand. Quarters: of the words of a context, in order.",
        "Text types by what a context holds: code from 5 % of its words, else figures from "
        "10 %, else names from 15 %, else prose.",
    )

    def __init__(
        self, engine: Icae, settings: MemorisationSettings, windows: Sequence[Window]
    ) -> None:
        self.engine, self.settings, self.windows = engine, settings, windows
        require_fit(engine, 2 * max(settings.lengths) + 1)

    def cells(self) -> list[Cell]:
        """Every length and ratio."""
        return [
            Cell(length=length, ratio=ratio)
            for length in self.settings.lengths
            for ratio in self.settings.ratios
        ]

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        samples = self.settings.samples
        return reading_cost(cell, samples, passes=0) + writing_cost(cell, samples)

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The rows of a cell: all texts, then each type that there is."""
        assert cell.ratio is not None
        decode, runtime = self.engine.tokenizer.decode, self.engine.runtime
        contexts = [window.context(cell.length) for window in self.windows]
        memories = encode_contexts(runtime, contexts, ratio=cell.ratio, tick=tick)
        written = write_back(runtime, memories, tick=tick)
        sources = [split_words(decode(ids.tolist())) for ids in contexts]
        ordinary = [w.core for words in sources for w in words if w.core.isalpha()]
        likeness = EmbeddingLikeness(
            self.engine.tokenizer,
            runtime.model.decoder.get_input_embeddings().weight,
            ordinary,
            seed=self.settings.seed,
        )
        texts = []
        for true, ids in zip(sources, written, strict=True):
            back = split_words(decode(list(ids)))
            texts.append(Aligned(true=true, written=back, pairs=aligned(true, back, likeness)))
        made = [self._row(cell, "all", texts, examples=0)]
        for name in TEXT_TYPES:
            own = [text for text in texts if text_type(text.true) == name]
            if own:
                made.append(self._row(cell, name, own, examples=self.settings.examples))
        return [{**row, "threshold": round(likeness.threshold, 3)} for row in made]

    def _row(self, cell: Cell, kind: str, texts: Sequence[Aligned], *, examples: int) -> Row:
        return {
            "kind": kind,
            "series": f"{cell.length} tokens, {cell.ratio:g}x, {kind}",
            "samples": len(texts),
            **error_figures(texts, seed=self.settings.seed),
            "examples": [example(text) for text in texts[:examples]],
        }


def error_figures(texts: Sequence[Aligned], *, seed: int) -> Row:
    """Shares of words that came back and errors per 100 words, over contexts.

    Args:
        texts: Contexts beside what was written back of them.
        seed: Seed of the bootstrap.

    Returns:
        Figures with intervals; None where no context has a word of that kind.
    """
    words = [len(text.true) for text in texts]
    rights = [text.right() for text in texts]
    figures: Row = {"right": plain(ratio_estimate([len(r) for r in rights], words, seed=seed))}
    for kind in CRITICAL:
        places = [text.places(kind) for text in texts]
        hit = [len(right.intersection(p)) for right, p in zip(rights, places, strict=True)]
        totals = [len(p) for p in places]
        figures[f"{kind}_right"] = (
            plain(ratio_estimate(hit, totals, seed=seed)) if sum(totals) else None
        )
    for n in range(QUARTERS):
        parts = [np.array_split(np.arange(count), QUARTERS)[n].tolist() for count in words]
        hit = [len(right.intersection(part)) for right, part in zip(rights, parts, strict=True)]
        totals = [len(part) for part in parts]
        figures[f"quarter_{n + 1}"] = (
            plain(ratio_estimate(hit, totals, seed=seed)) if sum(totals) else None
        )
    for error in CLASSES:
        counts = [100 * text.wrong(error) for text in texts]
        figures[error.replace(" ", "_")] = plain(ratio_estimate(counts, words, seed=seed))
    per_context = [len(r) / max(1, n) for r, n in zip(rights, words, strict=True)]
    return {**figures, "per_context": {"right": per_context}}


def example(text: Aligned) -> dict[str, Any]:
    """A context for the page: [error or None, true word, written word] of each pair."""
    return {
        "pairs": [
            [
                pair.error,
                "" if pair.true is None else text.true[pair.true].text,
                "" if pair.written is None else text.written[pair.written].text,
            ]
            for pair in text.pairs
        ]
    }
