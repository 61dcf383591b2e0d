"""A chat that waits for its answer, and the answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

from icae.config.types import Answer
from icae.errors import IcaeError, RequestError
from icae.memory import Memory
from icae.serve.chat_models import ChatRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An answer to a chat.

    Attributes:
        answer: The answer.
        compressed_tokens: Tokens of long messages that were read as memory.
        kv_bytes: Bytes of the decoder's key-value cache when it ended.
    """

    answer: Answer
    compressed_tokens: int
    kv_bytes: int

    @property
    def finish_reason(self) -> Literal["stop", "length"]:
        """``stop`` if the model ended the answer, ``length`` if the limit did."""
        return "stop" if self.answer.finished else "length"


@dataclass(kw_only=True, eq=False)
class ChatWork:
    """A chat that waits for its answer.

    Attributes:
        owner: Who asks.
        request: What is asked.
        memories: The memories it refers to.
        deadline: When it is too late to begin (`time.monotonic`).
        on_text: Called in the model's thread with each piece of a streamed answer, or None.
        future: Gets the answer, or the error.
        stop: Set when nobody waits for the rest of the answer.
    """

    owner: str
    request: ChatRequest
    memories: Sequence[Memory]
    deadline: float
    on_text: Callable[[str], None] | None = None
    future: Future[Answered] = field(default_factory=Future)
    stop: threading.Event = field(default_factory=threading.Event)

    def fail(self, error: Exception) -> None:
        """Give the error in place of an answer."""
        if not isinstance(error, IcaeError):
            log.error("An answer failed.", exc_info=error)
        self.future.set_exception(error)

    def give_up(self) -> None:
        """Stop an answer that nobody waits for any more."""
        self.stop.set()
        self.future.cancel()


def too_late() -> RequestError:
    """The error for an answer whose time is up."""
    return RequestError("The time for the answer is up.", status=504, code="timeout")
