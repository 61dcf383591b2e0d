"""A LlamaIndex memory block: what leaves the short-term memory becomes one memory, and is asked."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from icae.config.extras import import_extra
from icae.decode.conversation import Conversation, turns_of
from icae.decode.reader import Reader


def _library(module: str) -> Any:
    return import_extra(module, purpose="The LlamaIndex memory block", extra="llama-index")


_pydantic = _library("llama_index.core.bridge.pydantic")
BaseMemoryBlock: Any = _library("llama_index.core.memory").BaseMemoryBlock


class CompressedMemoryBlock(BaseMemoryBlock):
    """Flushed messages, compressed; gives what their memory answers to the newest user message.

    It lives as long as the process, and takes one call at a time.

    Attributes:
        reader: What compresses and answers: ``icae.load()``.
        name: What the block is called in the prompt.
        older_positions: Most decoder positions of the messages: the oldest are held ever more
            coarsely.
        max_new_tokens: Most tokens of an answer.
    """

    reader: Reader = _pydantic.Field(exclude=True)
    name: str = "earlier"
    older_positions: int = 512
    max_new_tokens: int = 128
    _told: Conversation = _pydantic.PrivateAttr()
    _lock: Any = _pydantic.PrivateAttr(default_factory=threading.Lock)

    def model_post_init(self, context: Any, /) -> None:
        """Begin with nothing."""
        super().model_post_init(context)
        self._told = Conversation(
            reader=self.reader, keep_turns=0, older_positions=self.older_positions
        )

    async def _aput(self, messages: list[Any]) -> None:
        said = [(str(one.role.value), one.content or "") for one in messages]
        await asyncio.to_thread(self._take, said)

    async def _aget(self, messages: list[Any] | None = None, **_: Any) -> str:
        asked = [one.content for one in messages or () if one.role == "user" and one.content]
        return await asyncio.to_thread(self._answer, asked[-1]) if asked else ""

    def _take(self, said: list[tuple[str, str]]) -> None:
        question, turns = turns_of(said)
        with self._lock:
            self._told.history += [*turns, (question, "")] if question else turns
            self._told.compact("")

    def _answer(self, question: str) -> str:
        with self._lock:
            if self._told.older is None:
                return ""
            return self.reader.ask(
                self._told.older, question, max_new_tokens=self.max_new_tokens
            ).text
