"""Memorisation study: what goes wrong where a text is written back freely, by text type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from icae.evals.bootstrap import Figure, ratio_figure
from icae.evals.decoding import encode_contexts, write_back
from icae.evals.experiment import RATIOS, Cell, HeldOut, TextExperiment, check_least
from icae.evals.plots import StackedBars
from icae.evals.tables import Row, columns_of
from icae.evals.word_errors import (
    CLASSES,
    TEXT_TYPES,
    EmbeddingLikeness,
    Pair,
    Word,
    aligned,
    split_words,
    text_type,
)
from icae.model.around import input_table

QUARTERS = 4
CRITICAL = ("number", "name", "code")


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

    def right(self) -> set[int]:
        """Indices of the true words that came back as they stand."""
        return {pair.true for pair in self.pairs if pair.error is None and pair.true is not None}

    def example(self) -> Row:
        """[error or None, true word, written word] of each pair."""
        return {
            "pairs": [
                [
                    pair.error,
                    "" if pair.true is None else self.true[pair.true].text,
                    "" if pair.written is None else self.written[pair.written].text,
                ]
                for pair in self.pairs
            ]
        }


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

    @classmethod
    def quick(cls, span: int) -> Self:
        """One span at 4x."""
        return cls(lengths=(span,), ratios=(4.0,), samples=16, examples=2)

    @classmethod
    def full(cls, span: int) -> Self:
        """One span, 2x to 8x."""
        return cls(lengths=(span,), ratios=RATIOS[:3], samples=256)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("The number of examples is out of range.", self.examples, 0)

    def measure(self, material: HeldOut, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell: all texts, then each type that there is."""
        engine, contexts = material.engine, self.contexts(material, cell)
        memories = encode_contexts(engine.runtime, contexts, ratio=cell.known_ratio)
        written = write_back(engine.runtime, memories)
        decode = engine.tokenizer.decode
        sources = [split_words(decode(ids.tolist())) for ids in contexts]
        likeness = EmbeddingLikeness(
            engine.tokenizer,
            input_table(engine.runtime.model.decoder),
            [w.core for words in sources for w in words if w.core.isalpha()],
            seed=self.seed,
        )
        texts = []
        for true, ids in zip(sources, written, strict=True):
            back = split_words(decode(list(ids)))
            texts.append(
                Aligned(true=true, written=back, pairs=aligned(true, back, likeness.alike))
            )
        made = []
        for kind in ("all", *TEXT_TYPES):
            own = [text for text in texts if kind in ("all", text_type(text.true))]
            shown = own[: self.examples] if kind != "all" else []
            if own:
                row = {
                    "kind": kind,
                    "series": f"{cell.length} tokens, {cell.times}, {kind}",
                    "samples": len(own),
                    **error_figures(own, seed=self.seed),
                    "examples": [text.example() for text in shown],
                    "threshold": round(likeness.threshold, 3),
                }
                made.append(row)
        return made


def error_figures(texts: Sequence[Aligned], *, seed: int) -> Row:
    """Shares of words that came back and errors per 100 words, over contexts.

    Returns:
        Figures with intervals; None where no context has a word of that kind.
    """
    rights, counts = [text.right() for text in texts], [len(text.true) for text in texts]

    def right_among(places: Sequence[Sequence[int]]) -> Figure | None:
        hits = [len(right.intersection(p)) for right, p in zip(rights, places, strict=True)]
        return ratio_figure(hits, [len(p) for p in places], seed=seed)

    figures: Row = {"right": right_among([range(count) for count in counts])}
    for kind in CRITICAL:
        places = [[i for i, word in enumerate(t.true) if word.kind == kind] for t in texts]
        figures[f"{kind}_right"] = right_among(places)
    for n in range(QUARTERS):
        parts = [np.array_split(np.arange(count), QUARTERS)[n].tolist() for count in counts]
        figures[f"quarter_{n + 1}"] = right_among(parts)
    for error in CLASSES:
        wrong = [100 * text.wrong(error) for text in texts]
        figures[error.replace(" ", "_")] = ratio_figure(wrong, counts, seed=seed)
    per_context = [len(r) / max(1, n) for r, n in zip(rights, counts, strict=True)]
    return {**figures, "per_context": {"right": per_context}}
