"""Who answers a question: the decoder behind a memory, or behind some text in its prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from icae.compression.adaptive import FidelityPolicy
from icae.compression.compressor import verbatim_spans
from icae.compression.refinement import RefineConfig
from icae.config.types import Answer, TokenIds
from icae.decode.prefix import Request
from icae.engine import Engine
from icae.evals.contexts import partners
from icae.evals.decoding import ContextMemory, TokenScores, peer_budget, slot_budget
from icae.evals.held import HeldSlots, HeldText, Hold
from icae.evals.questions import Question
from icae.memory import Memory, Span
from icae.memory.risk_note import note_of_words, words_at_risk
from icae.model.objectives import DecoderTask, instruction
from icae.model.prompts import render_full_prompt, render_prompt, tokenize, tokenize_with_offsets
from icae.store import MemoryStore, NewMemory, retrieve
from icae.store.passages import passages_of

SUMMARY_PROMPT = "Summarize the above text in at most {words} words."
WORDS_PER_TOKEN = 0.75
"""Words of English that a token stands for, about."""


class Behind(Protocol):
    """The decoder behind what stands for some contexts."""

    def score(self, tasks: Sequence[DecoderTask]) -> list[TokenScores]:
        """Teacher forcing, a task behind each."""
        ...

    def answer(self, prompts: Sequence[TokenIds], limit: int) -> list[Answer]:
        """Greedy answers to a prompt behind each, of so many tokens at most."""
        ...


@dataclass(frozen=True, kw_only=True)
class Read:
    """Some questions and what stands for the context of each, read.

    Attributes:
        prompts: The rendered prompts.
        held: What stands for the contexts.
        positions: Decoder positions of it, for each question.
        texts: What stands in each prompt, where that is neither the context nor nothing.
        read_before: Tokens that a model read to get there, all questions together: each context
            once, however often it was tried.
    """

    prompts: Sequence[TokenIds]
    held: Behind
    positions: Sequence[int]
    texts: Sequence[str | None]
    read_before: int = 0

    def answer(self, limit: int) -> list[Answer]:
        """Greedy answers of so many tokens at most."""
        return self.held.answer(self.prompts, limit)

    def losses(self, answers: Sequence[TokenIds]) -> list[NDArray[np.float64]]:
        """Token losses (nats) of an answer to each."""
        tasks = [instruction(p, a) for p, a in zip(self.prompts, answers, strict=True)]
        return [score.losses_T for score in self.held.score(tasks)]


Respondent = Callable[[Sequence[Question], float], Read]
"""(questions, context tokens per decoder position) -> both read, to be answered."""

Note = Callable[[Question, float], str]
"""(question, ratio) -> what stands in its prompt before the question."""

TextSource = Callable[[Sequence[Question], float], list[str]]
"""(questions, ratio) -> the text that stands in the prompt in place of each context."""


def by_memory(
    engine: Engine,
    hold: Hold,
    *,
    whose: Callable[[list[int]], list[int]] = list,
    note: Note | None = None,
) -> Respondent:
    """The frozen decoder behind memories, each made once for all questions about its context.

    Args:
        engine: Adapter and base model.
        hold: Makes the memories.
        whose: The context of each question -> that whose memory is asked.
        note: What stands in the prompts before the questions, or None.
    """
    tokenizer, asking = engine.tokenizer, engine.config.asking

    def read(questions: Sequence[Question], ratio: float) -> Read:
        asked = {question.group: question for question in questions}
        held = hold([question.context_ids for question in asked.values()], ratio)
        places = {group: i for i, group in enumerate(asked)}
        own = whose([places[question.group] for question in questions])
        positions = [held.positions[place] for place in own]
        if note is None:
            prompts = [render_prompt(tokenizer, q.prompt, asking=asking) for q in questions]
        else:
            made = [note(question, ratio) for question in asked.values()]
            notes = [made[place] for place in own]
            pairs = list(zip(notes, questions, strict=True))
            prompts = [render_full_prompt(tokenizer, text, q.prompt) for text, q in pairs]
            sizes = [len(tokenize(tokenizer, text)) if text else 0 for text in notes]
            positions = [a + b for a, b in zip(positions, sizes, strict=True)]
        return Read(
            prompts=prompts,
            held=held.pick(own),
            positions=positions,
            texts=[None] * len(prompts),
            read_before=context_tokens(questions),
        )

    return read


def by_text(
    engine: Engine, source: TextSource, decoder: PreTrainedModel | None = None
) -> Respondent:
    """A decoder with some text before the question in its prompt.

    Args:
        engine: Its frozen decoder reads.
        source: Gives the text.
        decoder: A tuned decoder that reads in its place, or None.
    """

    def read(questions: Sequence[Question], ratio: float) -> Read:
        tokenizer = engine.tokenizer
        pairs = list(zip(questions, source(questions, ratio), strict=True))
        positions = [len(tokenize(tokenizer, text)) if text else 0 for _, text in pairs]
        return Read(
            prompts=[render_full_prompt(tokenizer, text, q.prompt) for q, text in pairs],
            held=HeldText(engine=engine, positions=positions, decoder=decoder),
            positions=positions,
            texts=[text if text not in ("", q.context) else None for q, text in pairs],
        )

    return read


def context_tokens(questions: Sequence[Question]) -> int:
    """Tokens of the contexts, each counted once."""
    return sum({question.group: len(question.context_ids) for question in questions}.values())


def after_reading(respondent: Respondent) -> Respondent:
    """The same, whose texts are made by a model that reads the contexts."""

    def read(questions: Sequence[Question], ratio: float) -> Read:
        return replace(respondent(questions, ratio), read_before=context_tokens(questions))

    return read


def others(own: list[int]) -> list[int]:
    """For each question the memory of another text, about as long.

    What it gets right comes from the question and from what tuning taught about answers.
    """
    return [own[other] for other in partners(own)]


def span_hold(
    engine: Engine, shape: Callable[[Sequence[Sequence[Span]], float], Sequence[Sequence[Span]]]
) -> Hold:
    """Memories of spans: (verbatim spans of each context, ratio) -> spans of each context."""

    def hold(contexts: Sequence[TokenIds], ratio: float) -> HeldSlots:
        cut = [verbatim_spans(ids, engine.config) for ids in contexts]
        return HeldSlots.of(engine, [ContextMemory.of_spans(own) for own in shape(cut, ratio)])

    return hold


def refined(engine: Engine, config: RefineConfig) -> Hold:
    """Slots at one ratio, every span refined until it is held or given up."""

    def shape(cut: Sequence[Sequence[Span]], ratio: float) -> list[list[Span]]:
        pieces = [piece for own in cut for piece in own]
        made = dict(enumerate(engine.compressor.encode(pieces, ratio=ratio)))
        ids = {i: piece.verbatim_ids for i, piece in enumerate(pieces)}
        made |= engine.adaptive.refined(made, ids, config)
        rest = iter(range(len(pieces)))
        return [[made[next(rest)] for _ in own] for own in cut]

    return span_hold(engine, shape)


def within_budget(engine: Engine) -> Hold:
    """Ratios (the trained ones) and verbatim spans within as many positions as one ratio takes."""

    def shape(cut: Sequence[Sequence[Span]], ratio: float) -> list[list[Span]]:
        ratios = tuple({*engine.info.ratios, ratio})
        sizes = [sum(span.tokens for span in own) for own in cut]
        budgets = [slot_budget(size, engine.config, ratio) for size in sizes]
        return [
            engine.adaptive.choose(own, policy=FidelityPolicy(budget=budget, ratios=ratios))
            for own, budget in zip(cut, budgets, strict=True)
        ]

    return span_hold(engine, shape)


def lost_words(engine: Engine) -> Note:
    """A note of the figures, names and code that the slots of a context lose."""

    def note(question: Question, ratio: float) -> str:
        memory = engine.compress(question.context, ratio=ratio)
        assert memory.token_fidelity is not None
        _, starts = tokenize_with_offsets(engine.tokenizer, question.context)
        lost = words_at_risk(question.context, starts, memory.token_fidelity.reproduced)
        return note_of_words(lost)

    return note


def searched(engine: Engine) -> Respondent:
    """The passages that a store finds for the question, at most half the positions of all."""
    tokenizer, asking = engine.tokenizer, engine.config.asking

    def read(questions: Sequence[Question], ratio: float) -> Read:
        texts = [question.context for question in questions]
        memories = engine.compress_many(texts, ratio=ratio, verify=False)
        pairs = zip(memories, questions, strict=True)
        found = [found_in(memory, question.prompt) for memory, question in pairs]
        held = HeldSlots.of(engine, [ContextMemory.of_spans(memory.spans) for memory in found])
        return Read(
            prompts=[render_prompt(tokenizer, q.prompt, asking=asking) for q in questions],
            held=held,
            positions=held.positions,
            texts=[None] * len(texts),
            read_before=context_tokens(questions),
        )

    return read


def found_in(memory: Memory, question: str) -> Memory:
    """The passages of a memory that match a question best; the memory itself if none does."""
    half = sum(span.positions for span in memory.spans) // 2
    most = max(half, *(passage.positions for passage in passages_of(memory)))
    with TemporaryDirectory() as folder, MemoryStore.create(Path(folder, "store.db")) as store:
        store.add([NewMemory(name="text", memory=memory)])
        if not store.search(question, limit=1):
            return memory
        return retrieve(store, question, budget=most).memory


def whole_text(questions: Sequence[Question], ratio: float) -> list[str]:
    """The contexts as they are."""
    return [question.context for question in questions]


def per_context(
    engine: Engine, make: Callable[[list[Question], list[int]], list[str]]
) -> TextSource:
    """Texts made once for each context: (a question about each, most tokens of each) -> texts.

    The most tokens are as many as the memory takes positions.
    """

    def texts(questions: Sequence[Question], ratio: float) -> list[str]:
        asked = {question.group: question for question in questions}
        sizes = [len(question.context_ids) for question in asked.values()]
        budgets = [peer_budget(size, engine.config, ratio) for size in sizes]
        made = dict(zip(asked, make(list(asked.values()), budgets), strict=True))
        return [made[question.group] for question in questions]

    return texts


def first_tokens(engine: Engine) -> TextSource:
    """Each context cut off at the end of a token, in as many positions as the memory takes."""

    def make(asked: list[Question], budgets: list[int]) -> list[str]:
        pairs = zip(asked, budgets, strict=True)
        return [cut_text(engine.tokenizer, question.context, budget) for question, budget in pairs]

    return per_context(engine, make)


def cut_text(tokenizer: Any, text: str, tokens: int) -> str:
    """A text up to the end of its first so many tokens."""
    _, starts = tokenize_with_offsets(tokenizer, text)
    return text[: starts[tokens]] if tokens < len(starts) else text


def own_summary(engine: Engine) -> TextSource:
    """The frozen decoder's own summary, in as many positions as the memory takes."""

    def make(asked: list[Question], budgets: list[int]) -> list[str]:
        requests = []
        for question, budget in zip(asked, budgets, strict=True):
            prompt = SUMMARY_PROMPT.format(words=max(1, int(WORDS_PER_TOKEN * budget)))
            ids = render_full_prompt(engine.tokenizer, question.context, prompt)
            requests.append(Request(prefix=None, prompt_ids=ids))
        made = engine.runtime.generate_rows(requests, budgets, engine.answerer.stop_ids)
        decode = engine.tokenizer.decode
        return [decode(list(one.token_ids), skip_special_tokens=True).strip() for one in made]

    return per_context(engine, make)
