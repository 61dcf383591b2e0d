"""A LangChain chat model: older messages are read as one memory, the newest word for word."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from icae.config.extras import import_extra
from icae.decode.conversation import Conversation, turns_of
from icae.decode.reader import Reader, Turn
from icae.errors import InputError
from icae.memory import Memory

CONVERSATIONS = 8
"""Conversations whose memory is kept; that of any other is made anew from its messages."""


def _library(module: str) -> Any:
    return import_extra(module, purpose="The LangChain chat model", extra="langchain")


_messages, _outputs = _library("langchain_core.messages"), _library("langchain_core.outputs")
_pydantic = _library("pydantic")
BaseChatModel: Any = _library("langchain_core.language_models").BaseChatModel


class CompressedChat(BaseChatModel):
    """The frozen decoder: it reads the newest turns word for word and older ones as a memory.

    Messages that no answer stands between are one turn. Takes one call at a time.

    Attributes:
        reader: What compresses and answers: ``icae.load()``.
        documents: What is talked about, or None.
        keep_turns: Most earlier turns that are read word for word.
        older_positions: Most decoder positions of older ones.
        max_new_tokens: Most tokens of an answer.
    """

    reader: Reader = _pydantic.Field(exclude=True)
    documents: Memory | None = _pydantic.Field(default=None, exclude=True)
    keep_turns: int = 4
    older_positions: int = 512
    max_new_tokens: int = 128
    _lock: Any = _pydantic.PrivateAttr(default_factory=threading.Lock)
    _kept: deque[tuple[list[Turn], Conversation]] = _pydantic.PrivateAttr(
        default_factory=lambda: deque(maxlen=CONVERSATIONS)
    )

    @property
    def _llm_type(self) -> str:
        return "icae"

    def _generate(self, messages: list[Any], stop: Any = None, *_: Any, **__: Any) -> Any:
        if stop:
            raise InputError("This model has no stop texts.", got=repr(stop), fix="Leave them out.")
        said = [("assistant" if one.type == "ai" else one.type, one.text) for one in messages]
        question, turns = turns_of(said)
        with self._lock:
            told = self._after(turns)
            answer = told.ask(question, max_new_tokens=self.max_new_tokens)
            self._kept.append(([*turns, (question, answer.text)], told))
        read, written = answer.prompt_tokens, answer.answer_tokens
        message = _messages.AIMessage(
            content=answer.text,
            usage_metadata={
                "input_tokens": read,
                "output_tokens": written,
                "total_tokens": read + written,
            },
            response_metadata={"memory_positions": answer.memory_positions},
        )
        return _outputs.ChatResult(generations=[_outputs.ChatGeneration(message=message)])

    def _after(self, turns: list[Turn]) -> Conversation:
        """The conversation that had these turns so far."""
        for at, (seen, told) in enumerate(self._kept):
            if seen == turns[: len(seen)]:
                del self._kept[at]
                told.history += turns[len(seen) :]
                return told
        return Conversation(
            reader=self.reader,
            documents=self.documents,
            keep_turns=self.keep_turns,
            older_positions=self.older_positions,
            history=list(turns),
        )
