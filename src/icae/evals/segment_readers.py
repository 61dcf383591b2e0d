"""Readers behind memories that are more than slots at one ratio for all spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from icae.compression.adaptive import FidelityPolicy
from icae.compression.compressor import verbatim_spans
from icae.compression.refinement import RefineConfig
from icae.decode.prefix import Request
from icae.engine import Icae
from icae.evals.memories import ContextMemory, Tick, span_memory
from icae.evals.questions import Question
from icae.evals.readers import MemoryReader, Reading, slot_budget
from icae.memory import Span
from icae.memory.risk_note import note_of_words, words_at_risk
from icae.model import render_full_prompt, tokenize, tokenize_with_offsets

STEP_COST = 3
"""Forward passes that take about as long as one refinement step."""


class Shaper(Protocol):
    """Makes the segments of contexts in its own way."""

    def segments(
        self, questions: Sequence[Question], cut: Sequence[Sequence[Span]], ratio: float | None
    ) -> list[list[Span]]:
        """The segments of each context.

        Args:
            questions: A question about each context, which has its text.
            cut: The spans of each context, verbatim.
            ratio: Compression ratio that the cell is measured at; None for a shaper that has none.
        """
        ...


class SegmentReader(MemoryReader):
    """The frozen decoder behind memories that a shaper makes.

    Args:
        engine: Adapter and base model.
        shaper: Makes the segments.
    """

    def __init__(self, engine: Icae, shaper: Shaper) -> None:
        super().__init__(engine)
        self.shaper = shaper

    def read(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[Reading]:
        """Make each memory once, whatever the number of questions about its context."""
        asked = {question.group: question for question in questions}
        contexts = list(asked.values())
        span_length = self.engine.config.span_length
        cut = [
            verbatim_spans(question.context_ids, span_length=span_length) for question in contexts
        ]
        made = self.shaper.segments(contexts, cut, ratio)
        tick(2 * sum(len(question.context_ids) for question in contexts))
        memories: dict[int, ContextMemory] = {
            group: span_memory(self.engine.runtime, segments)
            for group, segments in zip(asked, made, strict=True)
        }
        return [self._reading(question, memories[question.group]) for question in questions]


def _grouped(made: Sequence[Span], cut: Sequence[Sequence[Span]]) -> list[list[Span]]:
    """Segments of all spans, by context."""
    rest = iter(made)
    return [[next(rest) for _ in own] for own in cut]


@dataclass(frozen=True, kw_only=True)
class RefinedShaper:
    """Slots at one ratio, refined where they fall short.

    Attributes:
        engine: Adapter and base model.
        config: When to stop and what to weigh.
    """

    engine: Icae
    config: RefineConfig

    def segments(
        self, questions: Sequence[Question], cut: Sequence[Sequence[Span]], ratio: float | None
    ) -> list[list[Span]]:
        """Every span refined until it is held or given up."""
        assert ratio is not None
        pieces = [piece for own in cut for piece in own]
        made = dict(enumerate(self.engine.compressor.encode(pieces, ratio=ratio)))
        ids = {i: piece.verbatim_ids for i, piece in enumerate(pieces)}
        made |= self.engine.adaptive.refined(made, ids, self.config)
        return _grouped([made[i] for i in range(len(pieces))], cut)


@dataclass(frozen=True, kw_only=True)
class VerbatimShaper:
    """The tokens themselves, read where slots are read: nothing is compressed or encoded.

    Attributes:
        engine: Adapter and base model; of the adapter only the objective tokens are used.
    """

    engine: Icae

    def segments(
        self, questions: Sequence[Question], cut: Sequence[Sequence[Span]], ratio: float | None
    ) -> list[list[Span]]:
        """Every span as its tokens."""
        return [list(own) for own in cut]


@dataclass(frozen=True, kw_only=True)
class BudgetShaper:
    """Ratios and verbatim spans within as many positions as one ratio would take.

    Attributes:
        engine: Adapter and base model; its trained ratios are chosen from.
    """

    engine: Icae

    def segments(
        self, questions: Sequence[Question], cut: Sequence[Sequence[Span]], ratio: float | None
    ) -> list[list[Span]]:
        """The best use of the positions of each context."""
        assert ratio is not None
        span_length = self.engine.config.span_length
        ratios = tuple({*self.engine.info.ratios, ratio})
        return [
            self.engine.adaptive.choose(
                own,
                policy=FidelityPolicy(
                    budget=slot_budget(question, span_length, ratio), ratios=ratios
                ),
            )
            for question, own in zip(questions, cut, strict=True)
        ]


class NotedReader(MemoryReader):
    """The memory at one ratio, and in the prompt a note of the words at risk.

    Args:
        engine: Adapter and base model.
    """

    def read(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[Reading]:
        """As for a memory; the note counts as positions of the context."""
        assert ratio is not None
        plain = super().read(questions, ratio, tick)
        notes = self._notes(questions, ratio)
        tokenizer = self.engine.tokenizer
        return [
            replace(
                reading,
                request=Request(
                    prefix=reading.request.prefix,
                    prompt_ids=render_full_prompt(
                        tokenizer, notes[question.group], question.prompt
                    ),
                ),
                context_positions=reading.context_positions
                + len(tokenize(tokenizer, notes[question.group])),
            )
            for question, reading in zip(questions, plain, strict=True)
        ]

    def _notes(self, questions: Sequence[Question], ratio: float) -> dict[int, str]:
        notes: dict[int, str] = {}
        for question in {question.group: question for question in questions}.values():
            memory = self.engine.compress(question.context, ratio=ratio)
            assert memory.token_fidelity is not None
            _, starts = tokenize_with_offsets(self.engine.tokenizer, question.context)
            words = words_at_risk(question.context, starts, memory.token_fidelity.reproduced)
            notes[question.group] = note_of_words(words)
        return notes
