"""Answering chats: those that wait together are written together."""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from icae.api import Icae
from icae.errors import IcaeError, RequestError
from icae.memory import Memory
from icae.memory.selection import merge
from icae.runtimes.base import Request
from icae.server.chat_request import ChatRequest, conversation
from icae.server.limits import Limits
from icae.server.long_messages import split_message
from icae.server.metrics import Metrics
from icae.types import Answer

CACHED_BYTES = 256_000_000
"""Most bytes of slots of long messages that are kept for the next turn of a conversation."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818  (not an error: it ends decoding)
    """The client of a streamed answer is gone, or its time is up."""


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

    def send(self, piece: str) -> None:
        """Hand on a piece of the answer.

        Raises:
            Stopped: If nobody waits for it.
        """
        if self.stop.is_set():
            raise Stopped
        if self.on_text is not None:
            self.on_text(piece)


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A chat as the decoder reads it."""

    work: ChatWork
    request: Request
    positions: int
    compressed_tokens: int
    max_new_tokens: int


class ChatAnswerer:
    """Answers chats with one loaded model; for one thread.

    Args:
        icae: The model.
        limits: Bounds of the server.
        metrics: Counts.
        longest_message: Most tokens of a message that is read as text; longer ones become
            memory. None: all are read as text.
        ratio: Context tokens per slot of such memory.
    """

    def __init__(
        self,
        icae: Icae,
        *,
        limits: Limits,
        metrics: Metrics,
        longest_message: int | None,
        ratio: float,
    ) -> None:
        self._icae = icae
        self._limits = limits
        self._metrics = metrics
        self._longest_message = longest_message
        self._ratio = ratio
        self._cached: OrderedDict[tuple[str, str], Memory] = OrderedDict()

    def answer(self, works: Sequence[ChatWork]) -> None:
        """Answer chats; the outcome of each, error or not, goes to its future.

        Args:
            works: One streamed chat, or any number of others.
        """
        alike: dict[int, list[_Ready]] = {}
        for work in works:
            if not work.future.set_running_or_notify_cancel():
                continue
            ready = self._attempt([work], functools.partial(self._prepare, work))
            if ready is not None:
                alike.setdefault(ready.max_new_tokens, []).append(ready)
        for group in alike.values():
            self._attempt([ready.work for ready in group], functools.partial(self._write, group))

    def _attempt(self, works: Sequence[ChatWork], act: Callable[[], T]) -> T | None:
        """Do something for chats; if it fails their futures get the error."""
        try:
            return act()
        except Stopped:
            error: Exception = RequestError("The answer was stopped.", status=504, code="timeout")
        except IcaeError as known:
            error = known
        except Exception as unknown:
            log.exception("An answer failed.")
            error = unknown
        for work in works:
            if not work.future.done():
                work.future.set_exception(error)
        return None

    def _prepare(self, work: ChatWork) -> _Ready:
        if time.monotonic() > work.deadline or work.stop.is_set():
            raise RequestError("The time for the answer is up.", status=504, code="timeout")
        memories, messages, compressed = list(work.memories), [], 0
        longest = work.request.auto_compress
        longest = self._longest_message if longest is None else longest
        for message in work.request.messages:
            if longest:
                split = split_message(message, longest=longest, count=self._icae.count_tokens)
                message = split.kept
                if split.memory is not None:
                    memories.append(self._memory_of(work.owner, split.memory))
                    compressed += memories[-1].tokens
            messages.append(message)
        question, history = conversation(messages)
        memory = merge(memories) if memories else None
        request = self._icae.request(memory, question, history=history)
        return _Ready(
            work=work,
            request=request,
            positions=0 if memory is None else memory.positions,
            compressed_tokens=compressed,
            max_new_tokens=self._room(request, work.request.max_tokens),
        )

    def _room(self, request: Request, asked: int | None) -> int:
        """How many tokens the answer may have."""
        decoder = self._icae.decoder
        read = decoder.positions(request.prefix, len(request.prompt_ids))[-1] + 1
        room = decoder.context_window - read
        if room < 1:
            raise RequestError(
                "Memories and messages do not fit the decoder's context window.",
                code="context_length_exceeded",
                param="messages",
                got=f"{read} positions",
                expected=f"fewer than {decoder.context_window}",
                fix="Refer to fewer memories, make them at a higher ratio, or say less.",
            )
        most = self._limits.answer_tokens
        return min(room, most if asked is None else min(asked, most))

    def _memory_of(self, owner: str, text: str) -> Memory:
        """Memory of a long message; the same text of the same owner is compressed once."""
        key = (owner, hashlib.sha256(text.encode()).hexdigest())
        if key in self._cached:
            self._cached.move_to_end(key)
            return self._cached[key]
        tokens = self._icae.count_tokens(text)
        if tokens / self._ratio > self._icae.decoder.context_window:
            raise RequestError(
                "A message is too long, even as memory.",
                code="context_length_exceeded",
                param="messages",
                got=f"{tokens} tokens at {self._ratio:g}x",
                expected=f"at most {self._icae.decoder.context_window} positions",
            )
        memory = self._icae.compress(text, ratio=self._ratio, name="message", verify=False)
        self._metrics.context_tokens.inc(memory.tokens)
        self._cached[key] = memory
        while sum(kept.slots.nbytes for kept in self._cached.values()) > CACHED_BYTES:
            self._cached.popitem(last=False)
        return memory

    def _write(self, group: Sequence[_Ready]) -> None:
        """Write the answers of chats with one limit."""
        if group[0].work.on_text is not None:
            answers = [self._write_streamed(ready) for ready in group]
        else:
            answers = self._icae.answerer.answer_many(
                [ready.request for ready in group],
                memory_positions=[ready.positions for ready in group],
                max_new_tokens=group[0].max_new_tokens,
            )
            self._metrics.together.observe(len(group))
        for ready, answer in zip(group, answers, strict=True):
            self._metrics.answer_tokens.inc(answer.answer_tokens)
            taken = answer.prompt_tokens + answer.answer_tokens
            ready.work.future.set_result(
                Answered(
                    answer=answer,
                    compressed_tokens=ready.compressed_tokens,
                    kv_bytes=self._icae.kv_bytes(taken),
                )
            )

    def _write_streamed(self, ready: _Ready) -> Answer:
        return self._icae.answerer.answer(
            ready.request.prefix,
            ready.request.prompt_ids,
            memory_positions=ready.positions,
            max_new_tokens=ready.max_new_tokens,
            on_text=ready.work.send,
        )
