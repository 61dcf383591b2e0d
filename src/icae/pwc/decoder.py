"""The frozen decoder as a writer: it reads the full context and answers, in batches.

The memory is to make the decoder say what it would say with the text before it. Its own
answers, where they are any good, are therefore the right targets, and need no service.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from icae.config.types import Answer
from icae.data.pwc.records import Reply
from icae.data.pwc.requests import AnswerRequest, Failure

BATCH = 32
"""Answers asked for at once; what a kill can cost."""


class FullContextReader(Protocol):
    """What is needed of `icae.engine.Icae`."""

    def ask_many(
        self, questions: Sequence[tuple[str, str]], *, max_new_tokens: int
    ) -> list[Answer]:
        """Answer (text, question) pairs, each from the full text."""
        ...


class DecoderWriter:
    """Has the frozen decoder answer; see `icae.data.pwc.requests.Writer`.

    Args:
        reader: The engine.
        model: Name of the decoder, for the record.
        max_new_tokens: Most tokens of an answer.
    """

    def __init__(self, reader: FullContextReader, *, model: str, max_new_tokens: int) -> None:
        self._reader, self._model, self._max_new_tokens = reader, model, max_new_tokens

    def write(
        self, requests: Sequence[AnswerRequest], *, record: Callable[[Reply], None]
    ) -> list[Failure]:
        """Answer every request greedily, in order: what is done after a stop is a beginning.

        Args:
            requests: The requests.
            record: Takes each reply, after its batch.

        Returns:
            Nothing: the decoder answers everything.

        Raises:
            InputError: If a text, prompt and answer do not fit the decoder's window.
        """
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            answers = self._reader.ask_many(
                [(request.context.text, request.prompt.text) for request in batch],
                max_new_tokens=self._max_new_tokens,
            )
            for request, answer in zip(batch, answers, strict=True):
                record(
                    Reply(
                        request=request.id,
                        text=answer.text,
                        finish="stop" if answer.finished else "length",
                        prompt_tokens=answer.prompt_tokens,
                        completion_tokens=answer.answer_tokens,
                        model=self._model,
                    )
                )
        return []
