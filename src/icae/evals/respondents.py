"""Who answers a question: the decoder behind a memory, or behind some text in its prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from icae.compression.adaptive import FidelityPolicy
from icae.compression.compressor import verbatim_spans
from icae.compression.refinement import RefineConfig
from icae.config.types import Answer, TokenIds
from icae.decode.prefix import Request
from icae.decode.torch_rows import Row as DecoderRow
from icae.engine import Engine
from icae.evals.contexts import partners
from icae.evals.decoding import plain_losses, slot_budget, span_memory
from icae.evals.held import Held, HeldSlots, Hold, answer_rows, slot_hold
from icae.evals.questions import Question
from icae.memory import Span
from icae.memory.risk_note import note_of_words, words_at_risk
from icae.model import (
    PlainRow,
    render_full_prompt,
    render_prompt,
    tokenize,
    tokenize_with_offsets,
)
from icae.model.objectives import instruction

MEMORY, FULL, UPPER = "memory", "full context", "upper bound"
OTHER, NOTHING, FIRST, SUMMARY = "other memory", "no context", "first tokens", "own summary"
REFINED, ADAPTIVE, NOTED = "refined memory", "adaptive memory", "memory with note"
VERBATIM = "verbatim memory"
ANY_RATIO = (FULL, NOTHING, VERBATIM, UPPER)
"""Who reads the same at every ratio; the others read as many positions as there are slots."""

SUMMARY_PROMPT = "Summarize the above text in at most {words} words."
WORDS_PER_TOKEN = 0.75
"""Words of English that a token stands for, about."""


@dataclass(frozen=True, kw_only=True)
class MemoryRead:
    """Questions behind memories.

    Attributes:
        prompts: The rendered prompts.
        held: The memory of each question.
        notes: Tokens of each prompt that also stand for the context.
    """

    prompts: Sequence[TokenIds]
    held: Held
    notes: Sequence[int]

    @property
    def positions(self) -> list[int]:
        """Positions of the memory, and of the note."""
        return [a + b for a, b in zip(self.held.positions, self.notes, strict=True)]

    @property
    def texts(self) -> list[None]:
        """No text stands for a context."""
        return [None] * len(self.prompts)

    def answer(self, limit: int) -> list[Answer]:
        """Answers behind ``[memory ; FT ; prompt]``."""
        return self.held.answer(self.prompts, limit)

    def losses(self, answers: Sequence[TokenIds]) -> list[NDArray[np.float64]]:
        """Losses behind the same."""
        tasks = [instruction(p, a) for p, a in zip(self.prompts, answers, strict=True)]
        return [score.losses_T for score in self.held.score(tasks)]


HoldQuestions = Callable[[Sequence[Question], float | None], Held]
"""Makes the memories of the contexts of some questions, each about another context."""


@dataclass(frozen=True, kw_only=True)
class MemoryRespondent:
    """The frozen decoder behind memories.

    Attributes:
        engine: Adapter and base model.
        hold: Makes the memories.
        swapped: Ask of the memory of another question's context, about as long. What it gets
            right comes from the question and from what tuning taught about the form of answers.
        note: (question, ratio) -> what stands in the prompt before the question, or None.
    """

    engine: Engine
    hold: HoldQuestions
    swapped: bool = False
    note: Callable[[Question, float], str] | None = None

    def read(self, questions: Sequence[Question], ratio: float | None) -> MemoryRead:
        """Make each memory once, whatever the number of questions about its context."""
        tokenizer = self.engine.tokenizer
        asked = {question.group: question for question in questions}
        held = self.hold(list(asked.values()), ratio)
        places = {group: i for i, group in enumerate(asked)}
        own = [places[question.group] for question in questions]
        if self.swapped:
            own = [own[other] for other in partners(own)]
        if self.note is None:
            notes = [""] * len(asked)
            asking = self.engine.config.asking
            prompts = [render_prompt(tokenizer, q.prompt, asking=asking) for q in questions]
        else:
            assert ratio is not None
            notes = [self.note(question, ratio) for question in asked.values()]
            prompts = [
                render_full_prompt(tokenizer, notes[place], question.prompt)
                for question, place in zip(questions, own, strict=True)
            ]
        sizes = [len(tokenize(tokenizer, note)) if note else 0 for note in notes]
        return MemoryRead(
            prompts=prompts, held=held.pick(own), notes=[sizes[place] for place in own]
        )


def holding(hold: Hold) -> HoldQuestions:
    """Memories of one kind, of token ids alone."""

    def made(questions: Sequence[Question], ratio: float | None) -> Held:
        assert ratio is not None
        return hold([question.context_ids for question in questions], ratio)

    return made


def _held_spans(
    engine: Engine,
    shape: Callable[[Sequence[Sequence[Span]], float | None], Sequence[Sequence[Span]]],
) -> HoldQuestions:
    """Memories of spans: (verbatim spans of each context, ratio) -> spans of each context."""

    def made(questions: Sequence[Question], ratio: float | None) -> Held:
        cut = [verbatim_spans(q.context_ids, engine.config) for q in questions]
        return HeldSlots.of(engine, [span_memory(spans) for spans in shape(cut, ratio)])

    return made


def refined(engine: Engine, config: RefineConfig) -> HoldQuestions:
    """Slots at one ratio, every span refined until it is held or given up."""

    def shape(cut: Sequence[Sequence[Span]], ratio: float | None) -> list[list[Span]]:
        assert ratio is not None
        pieces = [piece for own in cut for piece in own]
        made = dict(enumerate(engine.compressor.encode(pieces, ratio=ratio)))
        ids = {i: piece.verbatim_ids for i, piece in enumerate(pieces)}
        made |= engine.adaptive.refined(made, ids, config)
        rest = iter(range(len(pieces)))
        return [[made[next(rest)] for _ in own] for own in cut]

    return _held_spans(engine, shape)


def within_budget(engine: Engine) -> HoldQuestions:
    """Ratios (the trained ones) and verbatim spans within as many positions as one ratio takes."""

    def shape(cut: Sequence[Sequence[Span]], ratio: float | None) -> list[list[Span]]:
        assert ratio is not None
        ratios = tuple({*engine.info.ratios, ratio})
        sizes = [sum(span.tokens for span in own) for own in cut]
        budgets = [slot_budget(size, engine.config, ratio) for size in sizes]
        return [
            engine.adaptive.choose(own, policy=FidelityPolicy(budget=budget, ratios=ratios))
            for own, budget in zip(cut, budgets, strict=True)
        ]

    return _held_spans(engine, shape)


def verbatim(engine: Engine) -> HoldQuestions:
    """The tokens themselves, read where slots are read: nothing is compressed or encoded."""
    return _held_spans(engine, lambda cut, ratio: cut)


def lost_words(engine: Engine) -> Callable[[Question, float], str]:
    """A note of the figures, names and code that the slots of a context lose."""

    def note(question: Question, ratio: float) -> str:
        memory = engine.compress(question.context, ratio=ratio)
        assert memory.token_fidelity is not None
        _, starts = tokenize_with_offsets(engine.tokenizer, question.context)
        lost = words_at_risk(question.context, starts, memory.token_fidelity.reproduced)
        return note_of_words(lost)

    return note


@dataclass(frozen=True, kw_only=True)
class TextRead:
    """Questions behind some text in their prompts.

    Attributes:
        engine: Its frozen decoder reads.
        prompts: Text and question, rendered with the chat template.
        positions: Tokens of each text.
        texts: Texts that are neither the context nor nothing.
        decoder: A tuned decoder that reads in its place, or None.
    """

    engine: Engine
    prompts: Sequence[TokenIds]
    positions: Sequence[int]
    texts: Sequence[str | None]
    decoder: PreTrainedModel | None = field(default=None, repr=False)

    def answer(self, limit: int) -> list[Answer]:
        """Answers from the text."""
        if self.decoder is None:
            return self.engine.answerer.answer_many(
                [Request(prefix=None, prompt_ids=prompt_ids) for prompt_ids in self.prompts],
                memory_positions=self.positions,
                max_new_tokens=limit,
            )
        rows = [
            DecoderRow(
                front=None,
                tail_SD=self.engine.runtime.read_tokens(prompt_ids),
                positions=range(len(prompt_ids)),
                limit=limit,
            )
            for prompt_ids in self.prompts
        ]
        return answer_rows(self.engine, self.decoder, rows, self.positions)

    def losses(self, answers: Sequence[TokenIds]) -> list[NDArray[np.float64]]:
        """Losses behind the prompt."""
        rows = [
            PlainRow(ids=np.concatenate([prompt_ids, answer_ids]), scored=len(answer_ids))
            for prompt_ids, answer_ids in zip(self.prompts, answers, strict=True)
        ]
        return plain_losses(self.engine.runtime, rows, decoder=self.decoder)


TextSource = Callable[[Sequence[Question], float | None], list[str]]
"""(questions, ratio) -> the text that stands in the prompt in place of each context."""


@dataclass(frozen=True, kw_only=True)
class TextRespondent:
    """A decoder with some text before the question in its prompt.

    Attributes:
        engine: Its frozen decoder reads.
        source: Gives the text.
        decoder: A tuned decoder that reads in its place, or None.
    """

    engine: Engine
    source: TextSource
    decoder: PreTrainedModel | None = field(default=None, repr=False)

    def read(self, questions: Sequence[Question], ratio: float | None) -> TextRead:
        """Render text and question."""
        tokenizer = self.engine.tokenizer
        pairs = list(zip(questions, self.source(questions, ratio), strict=True))
        return TextRead(
            engine=self.engine,
            prompts=[render_full_prompt(tokenizer, text, q.prompt) for q, text in pairs],
            positions=[len(tokenize(tokenizer, text)) if text else 0 for _, text in pairs],
            texts=[text if text not in ("", q.context) else None for q, text in pairs],
            decoder=self.decoder,
        )


Read = MemoryRead | TextRead
"""Some questions and what stands for the context of each, read."""

Respondent = MemoryRespondent | TextRespondent
"""Reads the contexts of questions in its own way, to answer them."""


def whole_text(questions: Sequence[Question], ratio: float | None) -> list[str]:
    """The contexts as they are."""
    return [question.context for question in questions]


def no_text(questions: Sequence[Question], ratio: float | None) -> list[str]:
    """Nothing: what the decoder knows or guesses by itself."""
    return [""] * len(questions)


def first_tokens(engine: Engine) -> TextSource:
    """Each context cut off, at the end of a token, after as many tokens as there are slots."""

    def texts(questions: Sequence[Question], ratio: float | None) -> list[str]:
        assert ratio is not None
        result = []
        for question in questions:
            budget = slot_budget(len(question.context_ids), engine.config, ratio)
            _, starts = tokenize_with_offsets(engine.tokenizer, question.context)
            end = starts[budget] if budget < len(starts) else len(question.context)
            result.append(question.context[:end])
        return result

    return texts


def own_summary(engine: Engine) -> TextSource:
    """The frozen decoder's own summary, cut off after as many tokens as there are slots."""

    def texts(questions: Sequence[Question], ratio: float | None) -> list[str]:
        assert ratio is not None
        asked = {question.group: question for question in questions}
        budgets = [
            slot_budget(len(question.context_ids), engine.config, ratio)
            for question in asked.values()
        ]
        requests = []
        for question, budget in zip(asked.values(), budgets, strict=True):
            prompt = SUMMARY_PROMPT.format(words=max(1, int(WORDS_PER_TOKEN * budget)))
            ids = render_full_prompt(engine.tokenizer, question.context, prompt)
            requests.append(Request(prefix=None, prompt_ids=ids))
        made = engine.runtime.generate_rows(requests, budgets, engine.answerer.stop_ids)
        written = {
            group: engine.tokenizer.decode(list(one.token_ids), skip_special_tokens=True).strip()
            for group, one in zip(asked, made, strict=True)
        }
        return [written[question.group] for question in questions]

    return texts


def known_respondents(engine: Engine, refine: RefineConfig) -> dict[str, Respondent]:
    """Everybody who can answer with an engine alone, by name."""
    slots = holding(slot_hold(engine))
    return {
        MEMORY: MemoryRespondent(engine=engine, hold=slots),
        OTHER: MemoryRespondent(engine=engine, hold=slots, swapped=True),
        FULL: TextRespondent(engine=engine, source=whole_text),
        NOTHING: TextRespondent(engine=engine, source=no_text),
        FIRST: TextRespondent(engine=engine, source=first_tokens(engine)),
        SUMMARY: TextRespondent(engine=engine, source=own_summary(engine)),
        REFINED: MemoryRespondent(engine=engine, hold=refined(engine, refine)),
        ADAPTIVE: MemoryRespondent(engine=engine, hold=within_budget(engine)),
        NOTED: MemoryRespondent(engine=engine, hold=slots, note=lost_words(engine)),
        VERBATIM: MemoryRespondent(engine=engine, hold=verbatim(engine)),
    }
