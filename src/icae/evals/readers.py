"""Who answers a question: the decoder behind a memory, or behind some text in its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from icae.config.spans import plan_spans
from icae.config.types import Answer, TokenIds
from icae.decode.answering import Answerer
from icae.decode.prefix import Prefix, Request
from icae.decode.torch import TorchRuntime
from icae.engine import Icae
from icae.evals.contexts import partners
from icae.evals.memories import STEP_COST, ContextMemory, Tick, encode_contexts, score_tasks
from icae.evals.plain_decoder import plain_losses
from icae.evals.questions import Question
from icae.model import (
    FullContextModel,
    IcaeModel,
    PlainRow,
    render_full_prompt,
    render_prompt,
    tokenize,
    tokenize_with_offsets,
)
from icae.model.objectives import instruction

TOGETHER = 32
"""Questions between two reports of progress."""

SUMMARY_PROMPT = "Summarize the above text in at most {words} words."
WORDS_PER_TOKEN = 0.75
"""Words of English that a token stands for, about."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is read before an answer.

    Attributes:
        request: Memory and rendered prompt.
        context_positions: How many decoder positions of it stand for the context.
        memory: The memory, for readers that have one.
        text: The text in place of the context, for readers that have one of their own.
    """

    request: Request
    context_positions: int
    memory: ContextMemory | None = None
    text: str | None = None


class Reader(Protocol):
    """Reads the context of a question in its own way, and answers."""

    def read(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[Reading]:
        """What the decoder reads for each question.

        Args:
            questions: The questions.
            ratio: Compression ratio; None where it does not matter.
            tick: Called with the tokens that went through the model.
        """
        ...

    def answer(self, readings: Sequence[Reading], limit: int, tick: Tick) -> list[Answer]:
        """Answers of up to `limit` tokens, by greedy decoding."""
        ...

    def losses(
        self, readings: Sequence[Reading], answers: Sequence[TokenIds], tick: Tick
    ) -> list[NDArray[np.float64]]:
        """Loss (nats) of every token of given answers, under teacher forcing."""
        ...


class TextSource(Protocol):
    """The text that stands in the prompt in place of the context."""

    def texts(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[str]:
        """The text for each question; see `Reader.read`."""
        ...


def slot_budget(question: Question, span_length: int, ratio: float) -> int:
    """Slots that the memory of a question's context has at a ratio."""
    plans = plan_spans(len(question.context_ids), span_length=span_length, ratio=ratio)
    return sum(plan.slots for plan in plans)


def answer_in_parts(
    answerer: Answerer, readings: Sequence[Reading], limit: int, tick: Tick
) -> list[Answer]:
    """Answers, a few dozen at a time."""
    answers: list[Answer] = []
    for start in range(0, len(readings), TOGETHER):
        part = readings[start : start + TOGETHER]
        answers += answerer.answer_many(
            [reading.request for reading in part],
            memory_positions=[reading.context_positions for reading in part],
            max_new_tokens=limit,
        )
        tick(answer_cost(len(part), limit))
    return answers


def answer_cost(questions: int, limit: int) -> int:
    """The reading that takes about as long as writing answers together."""
    return STEP_COST * limit * -(-questions // 16)


class MemoryReader:
    """The frozen decoder behind memories.

    Args:
        engine: Adapter and base model.
    """

    def __init__(self, engine: Icae) -> None:
        self.engine, self.runtime, self.answerer = engine, engine.runtime, engine.answerer

    def memories(
        self, contexts: Sequence[TokenIds], ratio: float, tick: Tick
    ) -> list[ContextMemory]:
        """What stands for each context; see `read`."""
        return encode_contexts(self.runtime, contexts, ratio=ratio, tick=tick)

    def read(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[Reading]:
        """Compress each context once, whatever the number of questions about it."""
        assert ratio is not None
        contexts = {question.group: question.context_ids for question in questions}
        made = self.memories([*contexts.values()], ratio, tick)
        memories = dict(zip(contexts, made, strict=True))
        return [
            self._reading(question, memories[group])
            for question, group in zip(questions, self.groups(questions), strict=True)
        ]

    def groups(self, questions: Sequence[Question]) -> list[int]:
        """The context whose memory each question is asked of: its own."""
        return [question.group for question in questions]

    def _reading(self, question: Question, memory: ContextMemory) -> Reading:
        prefix = Prefix.of_slots(memory.slots_KD, memory.spans, "ft")
        prompt_ids = render_prompt(self.engine.tokenizer, question.prompt)
        return Reading(
            request=Request(prefix=prefix, prompt_ids=prompt_ids),
            context_positions=prefix.positions,
            memory=memory,
        )

    def answer(self, readings: Sequence[Reading], limit: int, tick: Tick) -> list[Answer]:
        """Answers from memory."""
        return answer_in_parts(self.answerer, readings, limit, tick)

    def losses(
        self, readings: Sequence[Reading], answers: Sequence[TokenIds], tick: Tick
    ) -> list[NDArray[np.float64]]:
        """Losses behind ``[memory ; FT ; prompt]``."""
        memories, tasks = [], []
        for reading, answer_ids in zip(readings, answers, strict=True):
            assert reading.memory is not None
            memories.append(reading.memory)
            tasks.append(instruction(reading.request.prompt_ids, answer_ids))
        scores = score_tasks(self.runtime, memories, tasks, tick=tick)
        return [score.losses_T for score in scores]


class OtherMemoryReader(MemoryReader):
    """The same behind the memory of another question's context, about as long.

    What it gets right comes from the question and from what tuning taught about the form of
    answers; what the slots carry is what the own memory adds to it.
    """

    def groups(self, questions: Sequence[Question]) -> list[int]:
        """Another context of the data set, the next in length."""
        own = super().groups(questions)
        return [own[other] for other in partners(own)]


class PlainReader:
    """A decoder with some text before the question in its prompt.

    Args:
        runtime: Holds the decoder, and scores.
        answerer: Lets it answer.
        source: Gives the text.
    """

    def __init__(self, runtime: TorchRuntime, answerer: Answerer, source: TextSource) -> None:
        self.runtime, self.answerer, self.source = runtime, answerer, source

    def read(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[Reading]:
        """Render text and question with the chat template."""
        tokenizer = self.answerer.tokenizer
        texts = self.source.texts(questions, ratio, tick)
        return [
            Reading(
                request=Request(
                    prefix=None, prompt_ids=render_full_prompt(tokenizer, text, question.prompt)
                ),
                context_positions=len(tokenize(tokenizer, text)) if text else 0,
                text=text if text not in ("", question.context) else None,
            )
            for question, text in zip(questions, texts, strict=True)
        ]

    def answer(self, readings: Sequence[Reading], limit: int, tick: Tick) -> list[Answer]:
        """Answers from the text."""
        return answer_in_parts(self.answerer, readings, limit, tick)

    def losses(
        self, readings: Sequence[Reading], answers: Sequence[TokenIds], tick: Tick
    ) -> list[NDArray[np.float64]]:
        """Losses behind the prompt."""
        rows = [
            PlainRow(
                ids=np.concatenate([reading.request.prompt_ids, answer_ids]),
                scored=len(answer_ids),
            )
            for reading, answer_ids in zip(readings, answers, strict=True)
        ]
        return plain_losses(self.runtime, rows, tick=tick)


class FullText:
    """The whole context."""

    def texts(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[str]:
        """The contexts as they are."""
        return [question.context for question in questions]


class NoText:
    """Nothing: what the decoder knows or guesses by itself."""

    def texts(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[str]:
        """Blank texts."""
        return [""] * len(questions)


@dataclass(frozen=True, kw_only=True)
class FirstTokens:
    """The context cut off after as many tokens as its memory has slots.

    Attributes:
        engine: Holds the tokenizer and the span length.
    """

    engine: Icae

    def texts(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[str]:
        """The beginnings of the contexts, cut at the end of a token."""
        assert ratio is not None
        result = []
        for question in questions:
            budget = slot_budget(question, self.engine.config.span_length, ratio)
            _, starts = tokenize_with_offsets(self.engine.tokenizer, question.context)
            end = starts[budget] if budget < len(starts) else len(question.context)
            result.append(question.context[:end])
        return result


@dataclass(frozen=True, kw_only=True)
class OwnSummary:
    """The decoder's own summary, of at most as many tokens as the memory has slots.

    Attributes:
        engine: The base model that writes it; no adapter has a part in it.
    """

    engine: Icae

    def texts(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[str]:
        """Summaries by greedy decoding, one for each context, cut off at the budget."""
        assert ratio is not None
        engine, tokenizer = self.engine, self.engine.tokenizer
        span_length = engine.config.span_length
        asked = {question.group: question for question in questions}
        budgets = {g: slot_budget(q, span_length, ratio) for g, q in asked.items()}
        requests = [
            Request(prefix=None, prompt_ids=self._prompt(question, budgets[group]))
            for group, question in asked.items()
        ]
        written: list[str] = []
        groups = list(asked)
        for start in range(0, len(groups), TOGETHER):
            part = groups[start : start + TOGETHER]
            limit = max(budgets[group] for group in part)
            made = engine.runtime.generate_many(
                requests[start : start + TOGETHER],
                max_new_tokens=limit,
                stop_ids=engine.answerer.stop_ids,
            )
            for group, one in zip(part, made, strict=True):
                ids = list(one.token_ids[: budgets[group]])
                written.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
            tick(answer_cost(len(part), limit))
        summaries = dict(zip(groups, written, strict=True))
        return [summaries[question.group] for question in questions]

    def _prompt(self, question: Question, budget: int) -> TokenIds:
        words = max(1, int(WORDS_PER_TOKEN * budget))
        prompt = SUMMARY_PROMPT.format(words=words)
        return render_full_prompt(self.engine.tokenizer, question.context, prompt)


def upper_bound_reader(engine: Icae, tuned: FullContextModel) -> PlainReader:
    """The decoder with a LoRA tuned to read whole contexts.

    Args:
        engine: The engine it is compared with; gives tokenizer and stop tokens.
        tuned: The tuned decoder.
    """
    # Behind plain prompts a runtime uses nothing of its model but the decoder.
    runtime = TorchRuntime(cast(IcaeModel, tuned))
    answerer = Answerer(
        runtime=runtime, tokenizer=engine.tokenizer, stop_ids=engine.answerer.stop_ids
    )
    return PlainReader(runtime, answerer, FullText())
