"""Memorisation study: what goes wrong where a text is written back freely, by text type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from icae.config.parsing import check
from icae.evals.bootstrap import Figure, ratio_figure
from icae.evals.decoding import encode_contexts, write_back
from icae.evals.experiment import RATIOS, Cell, Material, TextExperiment
from icae.evals.plots import StackedBars
from icae.evals.tables import Row, columns_of
from icae.evals.word_errors import (
    CLASSES,
    CRITICAL,
    TEXT_TYPES,
    Pair,
    aligned,
    split_words,
    text_type,
)

QUARTERS = 4


@dataclass(frozen=True, kw_only=True)
class Memorisation(TextExperiment):
    """Errors of free greedy reconstruction by class, text type, length and ratio.

    Attributes:
        examples: Contexts of each text type that stand in the result file, word by word.
    """

    samples: int = 48
    examples: int = 3

    name = "memorisation"
    title = "What is wrong where text is written back"
    question = "What is wrong where a text is written back?"
    quick: ClassVar = {"ratios": (4.0,), "samples": 16, "examples": 2}
    full: ClassVar = {"ratios": RATIOS[:3], "samples": 256}
    columns = columns_of(
        "length ratio kind samples right number_right name_right code_right quarter_1 quarter_2 "
        "quarter_3 quarter_4 " + " ".join(error.replace(" ", "_") for error in CLASSES),
        kind="text",
    )
    plots = (
        StackedBars(
            keys={error.replace(" ", "_"): error for error in CLASSES},
            title="errors per 100 words of the source",
        ),
    )
    notes = (
        "Free greedy decoding, aligned with the source word by word (difflib; a word is what "
        "stands between white space). The classes are errors per 100 words of the source. "
        "Number, name, code: either word of a pair looks like one; form: only case or "
        "punctuation differ; other: the rest; omission and insertion: words without a partner.",
        "Words, numbers, names and code right: share of those in the source that came back as "
        "they stand. Quarters: of the words of a context, in order.",
        "Text types by what a context holds: code from 5 % of its words, else figures from "
        "10 %, else names from 15 %, else prose.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        shown = self.examples >= 0
        check(shown, "The number of examples is out of range.", self.examples, "0 or more")

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell: all texts, then each type that there is."""
        engine, contexts = material.engine, self.contexts(material, cell)
        memories = encode_contexts(engine.runtime, contexts, ratio=cell.known_ratio)
        written = write_back(engine.runtime, memories)
        decode = engine.tokenizer.decode
        sources = [split_words(decode(ids.tolist())) for ids in contexts]
        texts = [
            aligned(true, split_words(decode(list(ids))))
            for true, ids in zip(sources, written, strict=True)
        ]
        types = list(map(text_type, sources))
        made = []
        for kind in ("all", *TEXT_TYPES):
            own = [text for text, own in zip(texts, types, strict=True) if kind in ("all", own)]
            shown = own[: self.examples] if kind != "all" else []
            if own:
                row = {
                    "kind": kind,
                    "series": f"{cell.length} tokens, {cell.times}, {kind}",
                    "samples": len(own),
                    **error_figures(own, seed=self.seed),
                    "examples": [{"pairs": list(map(_shown, text))} for text in shown],
                }
                made.append(row)
        return made


def _shown(pair: Pair) -> list[str | None]:
    """[error or None, true word, written word]."""
    return [pair.error, *("" if word is None else word.text for word in pair[:2])]


def error_figures(texts: Sequence[Sequence[Pair]], *, seed: int) -> Row:
    """Shares of words that came back and errors per 100 words, over contexts.

    Args:
        texts: The aligned words of each context.
        seed: Seed of the bootstrap.

    Returns:
        Figures with intervals; None where no context has a word of that kind.
    """
    words = [[pair for pair in text if pair.true is not None] for text in texts]
    rights = [np.array([pair.error is None for pair in own], bool) for own in words]
    kinds = [np.array([pair.true.kind for pair in own if pair.true]) for own in words]
    counts = list(map(len, words))

    def right_among(masks: Sequence[NDArray[np.bool_]]) -> Figure | None:
        hits = [(right & mask).sum() for right, mask in zip(rights, masks, strict=True)]
        return ratio_figure(hits, [mask.sum() for mask in masks], seed=seed)

    figures: Row = {"right": right_among([np.ones(count, bool) for count in counts])}
    for kind in CRITICAL:
        figures[f"{kind}_right"] = right_among([own == kind for own in kinds])
    for n in range(QUARTERS):
        masks = [np.zeros(count, bool) for count in counts]
        for mask in masks:
            mask[np.array_split(np.arange(len(mask)), QUARTERS)[n]] = True
        figures[f"quarter_{n + 1}"] = right_among(masks)
    for error in CLASSES:
        wrong = [100 * sum(pair.error == error for pair in text) for text in texts]
        figures[error.replace(" ", "_")] = ratio_figure(wrong, counts, seed=seed)
    return {**figures, "per_context": {"right": [r.sum() / max(1, len(r)) for r in rights]}}
