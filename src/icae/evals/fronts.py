"""The frozen decoder behind keys and values that it goes on from: answers, greedy text."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from icae.config.types import Answer
from icae.decode.answering import TextStream
from icae.decode.batching import RowClock
from icae.decode.prefix import Generated
from icae.decode.torch_rows import Row, greedy_rows
from icae.engine import Icae


def write_rows(
    engine: Icae, rows: Sequence[Row], fronts: Sequence[int], stop_ids: Collection[int]
) -> list[Generated]:
    """What the decoder writes greedily behind rows that are read together.

    Args:
        engine: Holds the frozen decoder.
        rows: Keys and values, and what is read behind them.
        fronts: Places of the keys and values of each row.
        stop_ids: Tokens that end a row.
    """
    clocks = [RowClock(begin=time.perf_counter()) for _ in rows]
    for step in greedy_rows(engine.runtime.model.decoder, rows, stop_ids):
        for row, token in zip(step.rows, step.tokens, strict=True):
            clocks[row].take(token, stop_ids)
    return [
        clock.generated(positions=front + len(row.tail_SD))
        for clock, row, front in zip(clocks, rows, fronts, strict=True)
    ]


def answer_rows(engine: Icae, rows: Sequence[Row], fronts: Sequence[int]) -> list[Answer]:
    """Answers behind keys and values that stand for contexts; see `write_rows`.

    Args:
        engine: Holds decoder, tokenizer and stop tokens.
        rows: Keys and values, and the prompt behind them.
        fronts: Places of the keys and values of each row.
    """
    made = write_rows(engine, rows, fronts, frozenset(engine.answerer.stop_ids))
    answers = []
    for one, front in zip(made, fronts, strict=True):
        stream = TextStream(engine.tokenizer, None)
        for token in one.token_ids:
            stream.add(token)
        answers.append(
            Answer(
                text=stream.close(),
                prompt_tokens=one.positions,
                memory_positions=front,
                answer_tokens=len(one.token_ids),
                seconds=one.seconds,
                first_token_seconds=one.first_token_seconds,
                finished=one.stopped,
            )
        )
    return answers
