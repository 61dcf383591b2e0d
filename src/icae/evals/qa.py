"""Answering questions: the memory of a context against the context and what else could be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icae.compression.refinement import RefineConfig
from icae.config.spans import check_ratio
from icae.engine import Icae
from icae.errors import ConfigError, InputError
from icae.evals.answer_figures import answer_figures, choose
from icae.evals.answer_metrics import rouge_signature
from icae.evals.experiment import (
    BY_RATIO,
    Cell,
    Column,
    Comparison,
    Panel,
    Prepared,
    Row,
)
from icae.evals.memories import Tick
from icae.evals.qa_comparison import COMPARED, compare_readers
from icae.evals.questions import QuestionSet, Room, read_question_sets
from icae.evals.readers import (
    FirstTokens,
    FullText,
    MemoryReader,
    NoText,
    OtherMemoryReader,
    OwnSummary,
    PlainReader,
    Reader,
    answer_cost,
    upper_bound_reader,
)
from icae.evals.segment_readers import (
    BudgetShaper,
    NotedReader,
    RefinedShaper,
    SegmentReader,
    VerbatimShaper,
)
from icae.model import FullContextModel, adapter_hash, load_trained, read_info, render_answer
from icae.model.adapter_files import FULL_CONTEXT

MEMORY, FULL, UPPER = "memory", "full context", "upper bound"
OTHER, NOTHING, FIRST, SUMMARY = "other memory", "no context", "first tokens", "own summary"

REFINED, ADAPTIVE, NOTED = "refined memory", "adaptive memory", "memory with note"
VERBATIM = "verbatim memory"

READERS = (MEMORY, FULL, NOTHING, FIRST, SUMMARY, OTHER)
"""Who answers unless others are named; the upper bound comes with its folder."""

ALL_READERS = (*READERS, REFINED, ADAPTIVE, NOTED, VERBATIM)
"""What may be asked for by name."""

BY_SLOTS = (MEMORY, FIRST, SUMMARY, OTHER, REFINED, ADAPTIVE, NOTED)
"""Readers of which each ratio is measured by itself: they read as many positions as slots."""


@dataclass(frozen=True, kw_only=True)
class QaSettings:
    """Settings of the experiment.

    Attributes:
        ratios: Compression ratios, context tokens per slot.
        questions: Questions drawn from each file; None takes all.
        max_new_tokens: Most tokens of an answer.
        max_context: Longest context in tokens; None: what the decoder's window holds.
        readers: Who answers, of `ALL_READERS`.
        refine_steps: Most refinement steps of a span, for the refined memory.
        upper_bound: Folder of a full-context reader, or None to leave the upper bound out.
        seed: Seed of the draw and of the bootstrap.
    """

    ratios: tuple[float, ...]
    questions: int | None = 200
    max_new_tokens: int = 64
    max_context: int | None = None
    readers: tuple[str, ...] = READERS
    upper_bound: Path | None = None
    refine_steps: int = 60
    seed: int = 0

    name = "qa"
    title = "Answers from memory, from the context and from what else could be read"

    def __post_init__(self) -> None:
        if not self.ratios:
            raise ConfigError("There is no ratio to measure.", expected="one ratio or more")
        for ratio in self.ratios:
            check_ratio(ratio)
        if self.questions is not None and self.questions < 2:
            raise ConfigError(
                "Too few questions to compare.", got=str(self.questions), expected=">= 2"
            )
        if self.max_new_tokens < 1:
            raise ConfigError(
                "Answers have no room.", got=str(self.max_new_tokens), expected=">= 1 token"
            )
        unknown = [reader for reader in self.readers if reader not in ALL_READERS]
        if unknown or not self.readers:
            raise ConfigError(
                "This reader is not known." if unknown else "There is no reader.",
                got=", ".join(map(repr, unknown)) or None,
                expected=", ".join(ALL_READERS),
            )
        self._refine()  # checks the steps

    def _refine(self) -> RefineConfig:
        return RefineConfig(steps=self.refine_steps)

    def fixed(self) -> Mapping[str, Any]:
        """The settings that make answers comparable; ratios and readers may be added."""
        return {
            "questions": self.questions,
            "max_new_tokens": self.max_new_tokens,
            "max_context": self.max_context,
            "refine_steps": self.refine_steps,
        }

    def prepare(self, engine: Icae, texts: Sequence[Path]) -> Prepared:
        """Draw the questions and load the upper bound.

        Raises:
            InputError: If a file or its questions cannot be used.
            AdapterError: If the upper bound cannot be used with this base model.
            MissingDependencyError: If the `[eval]` extra is not installed.
        """
        signature = rouge_signature()
        readers, record = self._readers(engine)
        room = Room(
            window=engine.runtime.context_window,
            answer=self.max_new_tokens,
            context=self.max_context,
        )
        sets = read_question_sets(
            texts, engine.tokenizer, room=room, count=self.questions, seed=self.seed
        )
        experiment = QuestionAnswering(engine, self, sets, readers)
        comparison = Comparison(
            title="The memory against the others",
            columns=COMPARED,
            compare=lambda rows: compare_readers(rows, memory=MEMORY, seed=self.seed),
        )
        record |= {
            "ratios": list(self.ratios),
            "rouge": signature,
            "sets": [_set_record(questions) for questions in sets],
        }
        return Prepared(experiment=experiment, record=record, comparison=comparison)

    def _readers(self, engine: Icae) -> tuple[dict[str, Reader], dict[str, Any]]:
        """Every reader asked for by name, and what the result says about the upper bound."""
        known: dict[str, Reader] = {
            MEMORY: MemoryReader(engine),
            OTHER: OtherMemoryReader(engine),
            FULL: PlainReader(engine.runtime, engine.answerer, FullText()),
            NOTHING: PlainReader(engine.runtime, engine.answerer, NoText()),
            FIRST: PlainReader(engine.runtime, engine.answerer, FirstTokens(engine=engine)),
            SUMMARY: PlainReader(engine.runtime, engine.answerer, OwnSummary(engine=engine)),
            REFINED: SegmentReader(engine, RefinedShaper(engine=engine, config=self._refine())),
            ADAPTIVE: SegmentReader(engine, BudgetShaper(engine=engine)),
            NOTED: NotedReader(engine),
            VERBATIM: SegmentReader(engine, VerbatimShaper(engine=engine)),
        }
        chosen = {name: known[name] for name in ALL_READERS if name in self.readers}
        if self.upper_bound is None:
            return chosen, {"upper_bound": None}
        base = engine.provenance
        info = read_info(self.upper_bound, FULL_CONTEXT)
        tuned = load_trained(
            FullContextModel,
            info,
            self.upper_bound,
            engine.runtime.model.decoder,
            base_model=base.base_model,
            base_hash=base.base_hash,
        )
        record = {
            "name": info.name,
            "hash": adapter_hash(self.upper_bound, FULL_CONTEXT),
            "lora_rank": info.model.lora_rank,
            "adapter_lora_rank": engine.config.lora_rank,
        }
        return {**chosen, UPPER: upper_bound_reader(engine, tuned)}, {"upper_bound": record}


def _set_record(questions: QuestionSet) -> dict[str, Any]:
    return {
        "dataset": questions.name,
        "questions_in_file": questions.in_file,
        "too_long": questions.too_long,
        "questions": len(questions.questions),
        "contexts": len(set(questions.groups)),
        "choices": list(questions.choices),
        "commonest_choice": questions.commonest_choice,
    }


class QuestionAnswering:
    """Every data set, reader and ratio.

    Args:
        engine: Adapter and base model.
        settings: Ratios and limits.
        sets: The questions of each data set.
        readers: Who answers, by name.
    """

    columns = (
        Column(title="data set", key="dataset"),
        Column(title="ratio", key="ratio"),
        Column(title="reads", key="kind"),
        Column(title="positions", key="positions"),
        Column(title="EM", key="em", digits=3),
        Column(title="F1", key="f1", digits=3),
        Column(title="ROUGE-1", key="rouge1", digits=3),
        Column(title="ROUGE-2", key="rouge2", digits=3),
        Column(title="ROUGE-L", key="rougeL", digits=3),
        Column(title="loss (nats/token)", key="loss", digits=3),
        Column(title="choice accuracy", key="accuracy", digits=3),
        Column(title="empty", key="empty", digits=3),
        Column(title="repeating", key="repeating", digits=3),
        Column(title="unterminated", key="unterminated", digits=3),
        Column(title="answer tokens", key="answer_tokens", digits=1),
    )

    def __init__(
        self,
        engine: Icae,
        settings: QaSettings,
        sets: Sequence[QuestionSet],
        readers: Mapping[str, Reader],
    ) -> None:
        self.engine, self.settings, self.readers = engine, settings, dict(readers)
        self.sets = {questions.name: questions for questions in sets}

    @property
    def panels(self) -> tuple[Panel, ...]:
        """F1 and loss of each data set, along the ratio."""
        return tuple(
            Panel(key=key, title=f"{name}: {title}", axis=BY_RATIO, dataset=name)
            for name in self.sets
            for key, title in (("f1", "F1"), ("loss", "loss on the reference (nats per token)"))
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the figures, and which questions were asked."""
        return (
            "Memory: the slots of the context. First tokens: the context cut off after as many "
            "tokens as there are slots. Own summary: the frozen decoder's summary of at most as "
            "many tokens. Upper bound: the whole context read through a LoRA tuned for it. Other "
            "memory: the slots of another question's context; what the slots carry is what the "
            "own memory adds to that.",
            "Refined memory: the slots after gradient steps against the decoder. Adaptive memory: "
            "the ratio of each span, or verbatim, chosen within as many positions. Memory with "
            "note: the slots, and in the prompt the figures, names and code that they lose. "
            "Verbatim memory: the tokens of the context where slots stand, nothing compressed.",
            "Positions: decoder positions read before the answer, prompt included (mean).",
            f"Answers: greedy, up to {self.settings.max_new_tokens} tokens. EM and F1 as in "
            "SQuAD, ROUGE by rouge-score, the best reference counts. Loss: mean over questions "
            "of the loss on the first reference answer and its end, under teacher forcing.",
            "Empty: no letter or digit. Repeating: a phrase three times or more in a row, six "
            "words or more. Unterminated: cut off by the limit.",
            *(_set_note(questions) for questions in self.sets.values()),
        )

    def cells(self) -> list[Cell]:
        """For each data set the readers that no ratio changes, then each ratio."""
        free = [name for name in self.readers if name not in BY_SLOTS]
        bound = [name for name in self.readers if name in BY_SLOTS]
        return [
            Cell(dataset=dataset, ratio=ratio, reader=self._cell_name(name))
            for dataset in self.sets
            for ratio, names in [(None, free), *((r, bound) for r in self.settings.ratios)]
            for name in names
        ]

    def _cell_name(self, reader: str) -> str:
        """The reader's name; that of the upper bound tells its weights."""
        folder = self.settings.upper_bound
        if reader != UPPER or folder is None:
            return reader
        return f"{reader} {adapter_hash(folder, FULL_CONTEXT)[:12]}"

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        questions = self._questions(cell).questions
        read = 2 * sum(len(question.context_ids) for question in questions)
        return read + answer_cost(len(questions), self.settings.max_new_tokens)

    def _questions(self, cell: Cell) -> QuestionSet:
        assert cell.dataset is not None
        return self.sets[cell.dataset]

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The row of a cell."""
        assert cell.reader is not None
        kind = next(name for name in self.readers if self._cell_name(name) == cell.reader)
        reader, asked = self.readers[kind], self._questions(cell)
        questions, tokenizer = asked.questions, self.engine.tokenizer
        readings = reader.read(questions, cell.ratio, tick)
        self._require_fit(cell, [len(r.request.prompt_ids) for r in readings])
        answers = reader.answer(readings, self.settings.max_new_tokens, tick)
        references = [render_answer(tokenizer, question.answers[0]) for question in questions]
        losses = [float(loss_T.mean()) for loss_T in reader.losses(readings, references, tick)]
        chosen = None
        if asked.choices:
            chosen = choose(reader, readings, tokenizer, choices=asked.choices, tick=tick)
        figures = answer_figures(
            questions, answers, losses, chosen=chosen, groups=asked.groups, seed=self.settings.seed
        )
        if any(reading.text is not None for reading in readings):
            figures["per_question"]["read"] = [reading.text for reading in readings]
        context_positions = float(np.mean([r.context_positions for r in readings]))
        return [
            {
                "kind": kind,
                "series": kind,
                "questions": len(questions),
                "context_positions": round(context_positions, 1),
                **figures,
            }
        ]

    def _require_fit(self, cell: Cell, prompts: Sequence[int]) -> None:
        window = self.engine.runtime.context_window
        if max(prompts) + self.settings.max_new_tokens > window:
            raise InputError(
                f"A prompt does not fit the decoder ({cell}).",
                got=f"{max(prompts)} tokens and {self.settings.max_new_tokens} of the answer",
                expected=f"at most {window}",
                fix="Lower --max-context or --max-new-tokens.",
            )


def _set_note(questions: QuestionSet) -> str:
    text = (
        f"{questions.name}: {len(questions.questions)} questions about "
        f"{len(set(questions.groups))} contexts, of {questions.in_file} in the file; "
        f"{questions.too_long} of the file were too long for the decoder or --max-context and "
        "were left out for every reader."
    )
    if questions.commonest_choice is None:
        return text
    return (
        f"{text} Choice accuracy: the likelier of {', '.join(questions.choices)}; always saying "
        f"the commonest gives {questions.commonest_choice:.3f}."
    )
