"""Answers of the decoder behind a memory or behind plain text, and their text as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from icae.config.types import Answer
from icae.decode.prefix import Generated, Request
from icae.decode.runtime import Runtime
from icae.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Answerer:
    """Checks that a prompt fits, lets the decoder answer, and counts.

    Attributes:
        runtime: Runs the decoder.
        tokenizer: The base model's tokenizer.
        stop_ids: Tokens that end an answer.
    """

    runtime: Runtime
    tokenizer: Any
    stop_ids: Sequence[int]

    def answer(
        self,
        request: Request,
        *,
        memory_positions: int,
        max_new_tokens: int,
        on_text: Callable[[str], None] | None,
    ) -> Answer:
        """Answer a rendered prompt by greedy decoding.

        Args:
            request: Memory and rendered prompt.
            memory_positions: Positions that stand for the context, for the record.
            max_new_tokens: Most tokens of the answer.
            on_text: Called with each piece of text as it is written.

        Raises:
            InputError: If it does not fit the decoder's context window.
        """
        self.require_room(request, max_new_tokens)
        stream = TextStream(self.tokenizer, on_text)
        made = self.runtime.generate(
            request.prefix,
            request.prompt_ids,
            max_new_tokens=max_new_tokens,
            stop_ids=self.stop_ids,
            on_token=stream.add,
        )
        return self._written(stream, made, memory_positions)

    def answer_many(
        self,
        requests: Sequence[Request],
        *,
        memory_positions: Sequence[int],
        max_new_tokens: int,
    ) -> list[Answer]:
        """Answer several rendered prompts together; as `answer`."""
        for request in requests:
            self.require_room(request, max_new_tokens)
        written = self.runtime.generate_many(
            requests, max_new_tokens=max_new_tokens, stop_ids=self.stop_ids
        )
        answers = []
        for made, positions in zip(written, memory_positions, strict=True):
            stream = TextStream(self.tokenizer, None)
            stream.ids += made.token_ids
            answers.append(self._written(stream, made, positions))
        return answers

    def _written(self, stream: TextStream, made: Generated, positions: int) -> Answer:
        return written_answer(
            stream.close(), made, memory_positions=positions, runtime=self.runtime.name
        )

    def require_room(self, request: Request, max_new_tokens: int) -> None:
        """Refuse what does not fit the decoder's context window.

        Raises:
            InputError: If memory, prompt and so many tokens of an answer do not fit.
        """
        room, window = self.runtime.room(request), self.runtime.context_window
        if max_new_tokens > room:
            prompt = len(request.prompt_ids)
            memory = window - room - prompt
            raise InputError(
                "Memory, prompt and answer do not fit the decoder's context window.",
                got=f"{memory} for the memory + {prompt} prompt + {max_new_tokens} answer",
                expected=f"at most {window} positions",
                fix="Leave --full-context out, to ask the memory in place of its text, or take a "
                "shorter answer (--max-new-tokens)."
                if request.prefix is None
                else "Ask fewer memories at once, one of a higher ratio, or a store of them "
                "(--store), which reads the best passages alone.",
            )


def written_answer(text: str, made: Generated, *, memory_positions: int, runtime: str) -> Answer:
    """An answer: its text, its tokens, positions of the context, and what ran the decoder."""
    return Answer(
        text=text,
        prompt_tokens=made.positions,
        memory_positions=memory_positions,
        answer_tokens=len(made.token_ids),
        seconds=made.seconds,
        first_token_seconds=made.first_token_seconds,
        finished=made.stopped,
        runtime=runtime,
    )


class TextStream:
    """Turns tokens into text piece by piece, never cutting a character.

    Args:
        tokenizer: Decodes the tokens.
        on_text: Called with each new piece, or None.
    """

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None] | None) -> None:
        self.tokenizer, self.on_text = tokenizer, on_text
        self.ids: list[int] = []
        self.sent = 0

    def add(self, token: int) -> None:
        """Take one token."""
        self.ids.append(token)
        if self.on_text is not None:
            text = self._text()
            if not text.endswith("�"):
                self._send(text)

    def close(self) -> str:
        """Send what is left and return the whole text."""
        text = self._text()
        self._send(text)
        return text.strip()

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True))

    def _send(self, text: str) -> None:
        if self.on_text is not None and len(text) > self.sent:
            self.on_text(text[self.sent :])
            self.sent = len(text)
