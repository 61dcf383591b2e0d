"""GIST as a rival: the frozen decoder behind the keys and values of gist tokens.

How the rival is trained, and what a frozen decoder means for it: `icae.model.gist`.

Shape legend: M objective tokens, S places of a prompt, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from icae.config.types import Answer, Objective, TokenIds
from icae.decode.prefix import Request
from icae.decode.torch_rows import Row
from icae.engine import Icae
from icae.evals.fronts import answer_rows, write_rows
from icae.evals.memories import STEP_COST, Tick, TokenScores
from icae.evals.questions import Question
from icae.evals.readers import TOGETHER, Reading, answer_cost
from icae.model import GistMemory, GistModel, render_prompt
from icae.model.objectives import DecoderTask, instruction


@torch.inference_mode()
def read_contexts(
    engine: Icae, model: GistModel, contexts: Sequence[TokenIds], ratio: float, tick: Tick
) -> list[GistMemory]:
    """The gist tokens of contexts, in forward passes of bounded size.

    Args:
        engine: Says how much is read in one pass.
        model: The trained rival.
        contexts: Token ids of each context.
        ratio: Context tokens per gist token.
        tick: Called with the tokens of each pass.
    """
    memories: list[GistMemory] = []
    for part in engine.runtime.batches([len(ids) for ids in contexts]):
        memories += model.encode(contexts[part], [ratio] * len(contexts[part]))
        tick(sum(len(ids) for ids in contexts[part]))
    return memories


@torch.inference_mode()
def score_behind(
    engine: Icae,
    model: GistModel,
    memories: Sequence[GistMemory],
    tasks: Sequence[DecoderTask],
    tick: Tick,
) -> list[TokenScores]:
    """Teacher forcing behind ``[gist tokens ; objective]``, in passes of bounded size.

    Args:
        engine: Says how much is read in one pass.
        model: The trained rival.
        memories: The memory of each row.
        tasks: The task of each row.
        tick: Called with the tokens of each pass.
    """
    result = []
    for part in engine.runtime.batches([len(task.target_ids) for task in tasks]):
        for score in model.score(memories[part], tasks[part]):
            losses_T = -score.log_probs_T.double().cpu().numpy()
            result.append(TokenScores(losses_T=losses_T, correct_T=score.correct_T.cpu().numpy()))
        tick(sum(len(task.target_ids) for task in tasks[part]))
    return result


@torch.inference_mode()
def _row(
    engine: Icae,
    model: GistModel,
    memory: GistMemory,
    objective: Objective,
    prompt_ids: TokenIds,
    limit: int,
) -> Row:
    """What is written from: the gist tokens, then ``[objective ; prompt]``."""
    tail_SD: Tensor = torch.cat([model.markers(objective), engine.runtime.read_tokens(prompt_ids)])
    return Row(
        front=memory.key_values,
        tail_SD=tail_SD,
        positions=range(memory.end, memory.end + len(tail_SD)),
        limit=limit,
    )


@dataclass(frozen=True, kw_only=True)
class GistReading(Reading):
    """A question and the gist tokens of its context.

    Attributes:
        gist: The gist tokens.
    """

    gist: GistMemory


class GistReader:
    """Answers behind gist tokens.

    Args:
        engine: Its frozen decoder reads; no adapter has a part in it.
        model: The trained rival, on that decoder.
    """

    def __init__(self, engine: Icae, model: GistModel) -> None:
        self.engine, self.model = engine, model

    def read(self, questions: Sequence[Question], ratio: float | None, tick: Tick) -> list[Reading]:
        """Read each context once, whatever the number of questions about it."""
        assert ratio is not None
        contexts = {question.group: question.context_ids for question in questions}
        made = read_contexts(self.engine, self.model, [*contexts.values()], ratio, tick)
        gists = dict(zip(contexts, made, strict=True))
        return [
            GistReading(
                request=Request(
                    prefix=None, prompt_ids=render_prompt(self.engine.tokenizer, question.prompt)
                ),
                context_positions=gists[question.group].places,
                gist=gists[question.group],
            )
            for question in questions
        ]

    def answer(self, readings: Sequence[Reading], limit: int, tick: Tick) -> list[Answer]:
        """Answers, a few dozen at a time."""
        answers: list[Answer] = []
        own = cast(Sequence[GistReading], readings)
        for start in range(0, len(own), TOGETHER):
            part = own[start : start + TOGETHER]
            rows = [
                _row(self.engine, self.model, r.gist, "ft", r.request.prompt_ids, limit)
                for r in part
            ]
            answers += answer_rows(self.engine, rows, [r.context_positions for r in part])
            tick(answer_cost(len(part), limit))
        return answers

    def losses(
        self, readings: Sequence[Reading], answers: Sequence[TokenIds], tick: Tick
    ) -> list[NDArray[np.float64]]:
        """Losses behind ``[gist tokens ; FT ; prompt]``."""
        own = cast(Sequence[GistReading], readings)
        tasks = [
            instruction(reading.request.prompt_ids, answer_ids)
            for reading, answer_ids in zip(own, answers, strict=True)
        ]
        gists = [reading.gist for reading in own]
        scores = score_behind(self.engine, self.model, gists, tasks, tick)
        return [score.losses_T for score in scores]


class GistHolder:
    """Holds held-out contexts in gist tokens; see `icae.evals.rival_texts.Holder`.

    Args:
        engine: Its frozen decoder reads.
        model: The trained rival, on that decoder.
    """

    def __init__(self, engine: Icae, model: GistModel) -> None:
        self.engine, self.model = engine, model

    def hold(self, contexts: Sequence[TokenIds], ratio: float, tick: Tick) -> HeldGists:
        """Read the contexts."""
        memories = read_contexts(self.engine, self.model, contexts, ratio, tick)
        return HeldGists(
            engine=self.engine,
            model=self.model,
            memories=tuple(memories),
            lengths=tuple(len(ids) for ids in contexts),
        )


@dataclass(frozen=True, kw_only=True)
class HeldGists:
    """Contexts as gist tokens.

    Attributes:
        engine: Its frozen decoder reads.
        model: The rival.
        memories: The gist tokens of each context.
        lengths: Tokens of each context.
    """

    engine: Icae
    model: GistModel
    memories: tuple[GistMemory, ...]
    lengths: tuple[int, ...]

    @property
    def positions(self) -> int:
        """Decoder positions of the first context."""
        return self.memories[0].places

    def score(self, tasks: Sequence[DecoderTask], tick: Tick) -> list[TokenScores]:
        """Teacher forcing, a task for each context."""
        return score_behind(self.engine, self.model, self.memories, tasks, tick)

    def write_back(self, count: int, tick: Tick) -> list[tuple[int, ...]]:
        """Greedy reconstruction of the first contexts, each to its own length."""
        written: list[tuple[int, ...]] = []
        nothing = np.zeros(0, dtype=np.int64)
        for start in range(0, count, TOGETHER):
            part = range(start, min(start + TOGETHER, count))
            rows = [
                _row(self.engine, self.model, self.memories[i], "ae", nothing, self.lengths[i])
                for i in part
            ]
            places = [self.memories[i].places for i in part]
            made = write_rows(self.engine, rows, places, frozenset())
            written += [one.token_ids for one in made]
            tick(STEP_COST * max(self.lengths[i] for i in part))
        return written
