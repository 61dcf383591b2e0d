"""Contexts in the form in which the decoder reads them, and what it does behind them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from transformers import PreTrainedModel

from icae.config.types import Answer, Objective, TokenIds
from icae.decode.answering import Answerer, written_answer
from icae.decode.batching import POSITIONS_PER_BATCH, span_batches
from icae.decode.prefix import Generated, Request
from icae.decode.torch import TorchRuntime
from icae.decode.torch_rows import Row as DecoderRow
from icae.decode.torch_rows import greedy_rows
from icae.engine import Engine
from icae.evals.decoding import (
    ContextMemory,
    TokenScores,
    encode_contexts,
    plain_scores,
    score_tasks,
    write_back,
)
from icae.model.gist import GistMemory, GistModel
from icae.model.losses import TaskScore
from icae.model.objectives import DecoderTask


@dataclass(frozen=True, kw_only=True)
class HeldSlots:
    """Contexts as slots.

    Attributes:
        runtime: Runs the decoder.
        answerer: Lets it answer.
        memories: The slots of each context.
    """

    runtime: TorchRuntime
    answerer: Answerer
    memories: tuple[ContextMemory, ...]

    @classmethod
    def of(cls, engine: Engine, memories: Sequence[ContextMemory]) -> HeldSlots:
        """Slots that the engine's decoder reads."""
        return cls(runtime=engine.runtime, answerer=engine.answerer, memories=tuple(memories))

    @property
    def positions(self) -> list[int]:
        """Slots of each context, with those that lead every memory that is asked."""
        lead = self.runtime.model.config.lead_slots
        return [memory.positions + lead for memory in self.memories]

    def pick(self, indices: Sequence[int]) -> HeldSlots:
        """Some of the contexts, in that order."""
        return replace(self, memories=tuple(self.memories[i] for i in indices))

    def score(self, tasks: Sequence[DecoderTask]) -> list[TokenScores]:
        """Teacher forcing, a task behind each context."""
        return score_tasks(self.runtime, self.memories, tasks)

    def answer(self, prompts: Sequence[TokenIds], limit: int) -> list[Answer]:
        """Greedy answers behind ``[slots ; FT]``; slots that questions share are read once."""
        requests = [
            Request(prefix=memory.prefix(self.runtime, "ft"), prompt_ids=prompt_ids)
            for memory, prompt_ids in zip(self.memories, prompts, strict=True)
        ]
        return self.answerer.answer_many(
            requests, memory_positions=self.positions, max_new_tokens=limit
        )

    def write_back(self) -> list[tuple[int, ...]]:
        """Greedy reconstruction of each context."""
        return write_back(self.runtime, self.memories)


@dataclass(frozen=True, kw_only=True)
class HeldGists:
    """Contexts as gist tokens.

    Attributes:
        engine: Its frozen decoder reads.
        model: The rival.
        gists: The gist tokens of each context.
        lengths: Tokens of each context.
    """

    engine: Engine
    model: GistModel
    gists: tuple[GistMemory, ...]
    lengths: tuple[int, ...]

    @property
    def positions(self) -> list[int]:
        """Gist tokens of each context."""
        return [gist.places for gist in self.gists]

    def pick(self, indices: Sequence[int]) -> HeldGists:
        """Some of the contexts, in that order."""
        gists = tuple(self.gists[i] for i in indices)
        return replace(self, gists=gists, lengths=tuple(self.lengths[i] for i in indices))

    @torch.inference_mode()
    def score(self, tasks: Sequence[DecoderTask]) -> list[TokenScores]:
        """Teacher forcing behind ``[gist tokens ; objective]``, in passes of bounded size."""
        scores: list[TaskScore] = []
        for part in self.engine.runtime.batches([len(task.target_ids) for task in tasks]):
            scores += self.model.score(self.gists[part], tasks[part])
        return [TokenScores.of(score) for score in scores]

    def answer(self, prompts: Sequence[TokenIds], limit: int) -> list[Answer]:
        """Greedy answers behind ``[gist tokens ; FT ; prompt]``."""
        rows = self._rows("ft", prompts, [limit] * len(prompts))
        return answer_rows(self.engine, self.model.decoder, rows, self.positions)

    def write_back(self) -> list[tuple[int, ...]]:
        """Greedy reconstruction of each context."""
        nothing = np.zeros(0, dtype=np.int64)
        rows = self._rows("ae", [nothing] * len(self.gists), self.lengths)
        return [one.token_ids for one in _write_rows(self.model.decoder, rows, frozenset())]

    @torch.inference_mode()
    def _rows(
        self, objective: Objective, prompts: Sequence[TokenIds], limits: Sequence[int]
    ) -> list[DecoderRow]:
        """What is written from: the gist tokens, then ``[objective ; prompt]``."""
        rows = []
        for gist, prompt_ids, limit in zip(self.gists, prompts, limits, strict=True):
            prompt_SD = self.engine.runtime.read_tokens(prompt_ids)
            tail_SD = torch.cat([self.model.markers(objective), prompt_SD])
            positions = range(gist.end, gist.end + len(tail_SD))
            row = DecoderRow(
                front=gist.key_values, tail_SD=tail_SD, positions=positions, limit=limit
            )
            rows.append(row)
        return rows


@dataclass(frozen=True, kw_only=True)
class HeldText:
    """Contexts as text (or none) in the prompts themselves.

    Attributes:
        engine: Its frozen decoder reads.
        positions: Tokens of each text.
        decoder: A tuned decoder that reads in its place, or None.
    """

    engine: Engine
    positions: Sequence[int]
    decoder: PreTrainedModel | None = field(default=None, repr=False)

    def score(self, tasks: Sequence[DecoderTask]) -> list[TokenScores]:
        """Teacher forcing of tasks whose prompts hold the texts."""
        return plain_scores(self.engine.runtime, tasks, decoder=self.decoder)

    def answer(self, prompts: Sequence[TokenIds], limit: int) -> list[Answer]:
        """Greedy answers to prompts that hold the texts."""
        if self.decoder is None:
            return self.engine.answerer.answer_many(
                [Request(prefix=None, prompt_ids=prompt_ids) for prompt_ids in prompts],
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
            for prompt_ids in prompts
        ]
        return answer_rows(self.engine, self.decoder, rows, self.positions)


Held = HeldSlots | HeldGists
"""Contexts that were read, one or several times each: the decoder goes on behind them."""

Hold = Callable[[Sequence[TokenIds], float], Held]
"""(contexts, context tokens per decoder position) -> the contexts, read."""


def slot_hold(engine: Engine) -> Hold:
    """The memory itself: contexts as the adapter's slots."""
    return lambda contexts, ratio: HeldSlots.of(
        engine, encode_contexts(engine.runtime, contexts, ratio=ratio)
    )


def _write_rows(
    decoder: PreTrainedModel, rows: Sequence[DecoderRow], stop_ids: Collection[int]
) -> list[Generated]:
    """What a decoder writes greedily behind rows, in batches of bounded size."""
    fronts = [0 if own.front is None else int(own.front[0][0].shape[2]) for own in rows]
    read = [front + len(own.tail_SD) for front, own in zip(fronts, rows, strict=True)]
    sizes = [own + row.limit for own, row in zip(read, rows, strict=True)]
    made: list[Generated] = []
    for part in span_batches(sizes, bound=POSITIONS_PER_BATCH):
        own = [Generated(positions=positions) for positions in read[part]]
        for step in greedy_rows(decoder, rows[part], stop_ids):
            for row, token in step.items():
                own[row].take(token, stop_ids)
        made += own
    return made


def answer_rows(
    engine: Engine,
    decoder: PreTrainedModel,
    rows: Sequence[DecoderRow],
    context_positions: Sequence[int],
) -> list[Answer]:
    """Answers behind rows, of which so many positions stand for each context."""
    decode, name = engine.tokenizer.decode, engine.runtime.name
    made = _write_rows(decoder, rows, frozenset(engine.answerer.stop_ids))
    return [
        written_answer(
            str(decode(list(one.token_ids), skip_special_tokens=True)).strip(),
            one,
            memory_positions=positions,
            runtime=name,
        )
        for one, positions in zip(made, context_positions, strict=True)
    ]
