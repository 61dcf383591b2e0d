"""Needles: a fact at some depth of a text of some length, asked for, by who reads the text.

The kinds of needles are those of RULER (Hsieh et al. 2024), made here from a seed.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from icae.compression.adaptive import FidelityPolicy
from icae.config.parsing import check
from icae.config.types import TokenIds
from icae.engine import Engine
from icae.errors import InputError
from icae.evals.bootstrap import mean_figure, ratio_figure
from icae.evals.experiment import Cell, Material, Opening, TextExperiment, check_known
from icae.evals.plots import DepthMaps, pareto_of
from icae.evals.questions import Question
from icae.evals.readers import (
    ADAPTIVE,
    ANY_RATIO,
    CHUNKS,
    FAITHFUL,
    FIRST,
    FULL,
    MEMORY,
    NOTED,
    NOTHING,
    PEERS,
    PEERS_NOTE,
    SEARCHED,
    respondents,
)
from icae.evals.standing import standing
from icae.evals.tables import Row, Table, columns_of
from icae.evals.text_metrics import is_empty, normalised
from icae.model.prompts import tokenize, tokenize_with_offsets

READERS = (FULL, MEMORY, ADAPTIVE, FAITHFUL, NOTED, SEARCHED, FIRST)
"""Who reads unless others are named."""
ALL_READERS = (*READERS, NOTHING, *PEERS)
"""What may be asked for by name."""

THINGS = "anchor basket candle dragon engine falcon garden hammer island jacket kettle ladder"
PLACES = "harbour mountain station library orchard museum village castle bakery theatre"
FIRST_NAMES = "Alice Bruno Clara Daniel Elena Felix Greta Hugo Irene Jonas Karla Leo"
LAST_NAMES = "Abbott Barlow Cramer Dalton Emerson Foster Garner Holloway Ingram Jarvis"
COMMON = 3
"""Words that are commoner than the others, variables of one value, and values of one thing."""

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Needle:
    """What is hidden in a text and asked for.

    Attributes:
        prompt: The question.
        wanted: What an answer has to say.
        sentences: What is put into the text, each at a depth (0..1).
    """

    prompt: str
    wanted: tuple[str, ...]
    sentences: tuple[tuple[float, str], ...]


def _things(rng: Rng, count: int) -> list[str]:
    """Different names of things, such as ``the anchor of the harbour``."""
    things, places = (rng.permutation(words.split())[:count] for words in (THINGS, PLACES))
    return [f"the {a} of the {b}" for a, b in zip(things, places, strict=True)]


def _number(rng: Rng) -> str:
    return str(rng.integers(1_000_000, 10_000_000))


def _name(rng: Rng) -> str:
    return f"{rng.choice(FIRST_NAMES.split())} {rng.choice(LAST_NAMES.split())}"


def _uuid(rng: Rng) -> str:
    return str(uuid.UUID(bytes=rng.bytes(16), version=4))


def _single(value: Callable[[Rng], str], what: str, others: int = 0) -> Callable[..., Needle]:
    """A fact about one thing, among the same of other things at any depth."""

    def make(rng: Rng, depth: float) -> Needle:
        thing, *more = _things(rng, 1 + others)
        wanted = value(rng)
        rest = [(float(rng.random()), f"The {what} of {own} is {value(rng)}.") for own in more]
        return Needle(
            prompt=f"What is the {what} of {thing}?",
            wanted=(wanted,),
            sentences=((depth, f"The {what} of {thing} is {wanted}."), *rest),
        )

    return make


def _values(rng: Rng, depth: float) -> Needle:
    """Several values of one thing: the first at the depth, the others anywhere."""
    (thing,) = _things(rng, 1)
    wanted = tuple(_number(rng) for _ in range(COMMON))
    depths = (depth, *map(float, rng.random(COMMON - 1)))
    said = [f"A code of {thing} is {number}." for number in wanted]
    return Needle(
        prompt=f"What are all the codes of {thing}?",
        wanted=wanted,
        sentences=tuple(zip(depths, said, strict=True)),
    )


def _variables(rng: Rng, depth: float) -> Needle:
    """A chain of variables: the first at the depth, the others evenly behind it."""
    letters = list("BCDFGHJKLMNPQRSTVWXZ")
    names = ["".join(rng.choice(letters, 4, replace=False)) for _ in range(COMMON)]
    number = _number(rng)
    said = [f"VAR {a} = {b}." for a, b in zip(names, [number, *names], strict=False)]
    depths = np.linspace(depth, 1, COMMON + 1)[:-1].tolist()
    return Needle(
        prompt=f"Which variables have the value {number}?",
        wanted=tuple(names),
        sentences=tuple(zip(depths, said, strict=True)),
    )


PLANTED: Mapping[str, Callable[[Rng, float], Needle]] = {
    "number": _single(_number, "secret number"),
    "name": _single(_name, "owner"),
    "uuid": _single(_uuid, "identifier"),
    "several": _single(_number, "secret number", others=3),
    "values": _values,
    "variables": _variables,
}
"""Kinds of needles in held-out text."""
KINDS = (*PLANTED, "keys", "words")
"""All kinds; keys (with values) and words (common ones) fill the whole text."""


def planted(text: str, sentences: Sequence[tuple[float, str]]) -> str:
    """A text with sentences at depths (0..1), each behind the nearest end of a sentence before."""
    text = f"{text.strip()} "
    size = len(text)
    ends = [0, *(match.end() for match in re.finditer(r"[.!?]\s+", text)), size]
    # From the last to the first, so that places before stay where they are.
    for depth, sentence in sorted(sentences, key=lambda one: one[0])[::-1]:
        at = max(end for end in ends if end <= depth * size)
        text = f"{text[:at]}{sentence} {text[at:]}"
    return text.strip()


def key_values(rng: Rng, depth: float, count: int) -> tuple[str, Needle]:
    """Lines of keys and values, and the needle that asks for the one at a depth."""
    keys, values = ([_number(rng) for _ in range(count)] for _ in range(2))
    at = round(depth * (count - 1))
    text = "\n".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True))
    prompt = f"What is the value of the key {keys[at]}?"
    return text, Needle(prompt=prompt, wanted=(values[at],), sentences=())


def common_words(rng: Rng, text: str, count: int) -> tuple[str, Needle]:
    """Words of a text in random order, a few of them every other time, and who asks for these."""
    words = rng.permutation(sorted(set(re.findall(r"\b[a-z]{4,8}\b", text)))).tolist()
    often, rest = words[:COMMON], words[COMMON:] or words
    drawn = [often[i % COMMON] if i % 2 else rest[i // 2 % len(rest)] for i in range(count)]
    prompt = f"What are the {COMMON} most common words in the list?"
    listed = ", ".join(rng.permutation(drawn).tolist())
    return listed, Needle(prompt=prompt, wanted=tuple(often), sentences=())


def said(answer: str, wanted: Sequence[str]) -> float:
    """Share of the wanted strings (0..1) that stand in an answer as whole words, normalised."""
    words = f" {normalised(answer)} "
    return float(np.mean([f" {normalised(one)} " in words for one in wanted]))


@dataclass(frozen=True, kw_only=True)
class NeedleMap(TextExperiment):
    """Needles by kind, length, depth, reader and ratio.

    Attributes:
        depths: Where the needle stands, as shares of the text.
        kinds: Kinds of needles, of `KINDS`.
        readers: Who reads, of `ALL_READERS`.
        min_fidelity: Fidelity that every span of the faithful memory must reach.
        max_new_tokens: Most tokens of an answer.
    """

    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    kinds: tuple[str, ...] = KINDS
    readers: tuple[str, ...] = READERS
    samples: int = 8
    min_fidelity: float = 0.9
    max_new_tokens: int = 48

    name = "needle"
    title = "Needles found, by depth and length of the text"
    question = "Is a fact found wherever it stands in a text?"
    grows = ("lengths", "ratios", "kinds", "readers")
    quick: ClassVar = {
        **{"lengths": (256, 512), "ratios": (2.0, 4.0), "depths": (0.0, 0.5, 1.0), "samples": 2},
        **{"kinds": ("number", "name"), "readers": (FULL, MEMORY, FIRST, CHUNKS)},
        "max_new_tokens": 24,
    }
    full: ClassVar = {"lengths": (512, 1024, 2048, 4096), "ratios": (2.0, 4.0, 8.0), "samples": 16}
    columns = columns_of(
        "dataset length ratio kind positions seconds found empty",
        **{"dataset": "needle", "kind": "reads", "seconds": "seconds a question"},
    )
    plots = (DepthMaps(key="by_depth", title="found"), *pareto_of("found", "found", each=None))
    opening = Opening(
        name="needle-map",
        title="Is a fact found wherever it stands?",
        text="A number or a name is hidden at some depth of a text and asked for. Green: found. "
        "Each map is one way to read the text; 4x means a quarter of the positions.",
        plots=plots[:1],
    )
    notes = (
        "Found: share of the wanted strings that stand in the greedy answer as whole words "
        "(case and punctuation aside). Intervals are over held-out texts.",
        "Number, name, uuid: one fact in held-out text. Several: four facts, one asked for. "
        "Values: three values of one thing. Variables: a chain of three assignments. Keys: lines "
        "of keys and values, one asked for. Words: the three commonest words of a list; no depth.",
        "Adaptive memory: the ratio of each span, or verbatim, chosen within as many positions as "
        "the memory takes. Faithful memory: the highest ratio at which every span reaches the "
        "minimal fidelity. Memory with note: in the prompt stand the figures, names and code that "
        "the slots lose. Store search: the passages that the question finds, at most half the "
        "positions. First tokens: the text cut off after as many tokens as the memory takes.",
        "Positions: decoder positions that stand for the text (mean). Seconds: reading and "
        "answering a question, the mean.",
        PEERS_NOTE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("This kind of needle is not known.", self.kinds, KINDS)
        check_known("This reader is not known.", self.readers, ALL_READERS)
        inside = bool(self.depths) and all(0 <= depth <= 1 for depth in self.depths)
        check(inside, "A depth is out of range.", self.depths, "0 (begin) to 1 (end)")
        check(self.max_new_tokens >= 1, "Answers have no room.", self.max_new_tokens, "1 or more")
        FidelityPolicy(min_fidelity=self.min_fidelity)  # checks it

    @property
    def positions(self) -> int:
        """The longest text, the question and its answer."""
        return max(self.lengths) + self.max_new_tokens + 128

    def prepare(self, engine: Engine, inputs: Sequence[Path]) -> Material:
        """Draw the texts and name the readers."""
        drawn = super().prepare(engine, inputs)
        own, absent = respondents(engine, self.readers, min_fidelity=self.min_fidelity)
        record = {key: value for key, value in drawn.record.items() if key != "bleu"}
        return replace(drawn, record=record, respondents=own, notes=absent)

    def cells(self, material: Material) -> list[Cell]:
        """For each kind and length the readers that no ratio changes, then each ratio."""
        return [
            Cell(length=length, ratio=ratio, dataset=kind, reader=name)
            for kind in KINDS
            if kind in self.kinds
            for length in self.lengths
            for ratio in (None, *self.ratios)
            for name in material.respondents
            if (name in ANY_RATIO) == (ratio is None)
        ]

    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The row of a cell."""
        kind, reader = cell.dataset or "", cell.reader or ""
        depths = [None] if kind == "words" else list(self.depths)
        places = [(i, depth) for i in range(len(material.windows)) for depth in depths]
        hay = material.contexts(cell.length, after=0)
        questions = [
            self._asked(material.engine, kind, hay[i], depth or 0.0, i, number)
            for number, (i, depth) in enumerate(places)
        ]
        begin = time.perf_counter()
        read = material.respondents[reader](questions, cell.ratio or 1.0)
        written = [answer.text for answer in read.answer(self.max_new_tokens)]
        seconds = (time.perf_counter() - begin) / len(questions)
        positions = round(float(np.mean(read.positions)), 1)
        found = [said(text, q.answers) for text, q in zip(written, questions, strict=True)]
        groups = [i for i, _ in places]
        by_depth = np.reshape(found, (len(material.windows), len(depths))).mean(axis=0)
        return [
            {
                "kind": reader,
                "series": reader if cell.ratio is None else f"{reader}, {cell.times}",
                "questions": len(questions),
                "positions": positions,
                "context_positions": positions,
                "seconds": round(seconds, 3),
                "found": mean_figure(found, groups=groups, seed=self.seed),
                "empty": round(float(np.mean([is_empty(text) for text in written])), 3),
                "depths": depths,
                "by_depth": [round(float(value), 4) for value in by_depth],
                "per_question": {
                    "group": groups,
                    "depth": [depth for _, depth in places],
                    "prompt": [question.prompt for question in questions],
                    "reference": [", ".join(question.answers) for question in questions],
                    "answer": written,
                    "found": [round(value, 5) for value in found],
                },
            }
        ]

    def _asked(
        self, engine: Engine, kind: str, hay: TokenIds, depth: float, sample: int, group: int
    ) -> Question:
        """A text of about as many tokens as the held-out one, with a needle that is asked for."""
        tokenizer, length = engine.tokenizer, len(hay)
        rng = np.random.default_rng([self.seed, KINDS.index(kind), sample, length, group])
        text = tokenizer.decode(hay.tolist(), skip_special_tokens=True).strip()
        if kind == "keys":
            line = len(tokenize(tokenizer, key_values(rng, 0.0, 8)[0])) / 8
            text, needle = key_values(rng, depth, max(1, int(length / (line + 1))))
        elif kind == "words":
            text, needle = common_words(rng, text, length // 3)
        else:
            needle = PLANTED[kind](rng, depth)
            room = length - sum(len(tokenize(tokenizer, own)) for _, own in needle.sentences)
            if room < length // 4:
                raise InputError(
                    "A needle is too long for the text around it.",
                    got=f"{length - room} of {length} tokens ({kind})",
                    expected="at most three quarters of the text",
                    fix="Raise --lengths, or leave the kind out of --kinds.",
                )
            _, starts = tokenize_with_offsets(tokenizer, text)
            text = text[: starts[room]] if room < len(starts) else text
            text = planted(text, needle.sentences)
        ids = tokenize(tokenizer, text)
        return Question(
            context=text,
            context_ids=ids,
            prompt=needle.prompt,
            answers=needle.wanted,
            group=group,
        )

    def verdict(self, rows: Sequence[Row]) -> str:
        """How the memory stands beside its peers."""
        return standing(rows, "found", "found", by_dataset=False)

    def compared(self, material: Material, rows: Sequence[Row]) -> Table | None:
        """Every reader over all kinds and lengths, beside the full context."""
        columns = columns_of("kind ratio positions_share found of_full", kind="reads")
        named = {**columns, "of_full": "found / full context"}
        series = dict.fromkeys(row["series"] for row in rows)
        full = [row for row in rows if row["kind"] == FULL]
        own = [[row for row in rows if row["series"] == name] for name in series]
        made = [self._total(part, full) for part in own]
        return Table(made, named, title="All needles")

    def _total(self, rows: Sequence[Row], full: Sequence[Row]) -> Row:
        """One reader, over all that it was asked."""
        found, others, groups = (
            [value for row in some for value in row["per_question"][key]]
            for some, key in ((rows, "found"), (full, "found"), (rows, "group"))
        )
        share = sum(r["positions"] * r["questions"] for r in rows)
        share /= sum(r["length"] * r["questions"] for r in rows)
        paired: Any = ratio_figure(found, others, groups=groups, seed=self.seed) if others else None
        return {
            "kind": rows[0]["kind"],
            "ratio": rows[0]["ratio"],
            "positions_share": round(share, 3),
            "found": mean_figure(found, groups=groups, seed=self.seed),
            "of_full": paired,
        }
