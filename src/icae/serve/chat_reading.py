"""From a chat to what the decoder reads: long messages become memory."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass

from icae.decode.prefix import Request
from icae.engine import Icae
from icae.errors import RequestError
from icae.memory import Memory, merge
from icae.serve.chat_request import conversation
from icae.serve.chat_work import ChatWork
from icae.serve.limits import Limits
from icae.serve.long_messages import split_message
from icae.serve.metrics import Metrics

CACHED_BYTES = 256_000_000
"""Most bytes of slots of long messages that are kept for the next turn of a conversation."""


@dataclass(frozen=True, kw_only=True)
class ReadyChat:
    """A chat as the decoder reads it.

    Attributes:
        work: The chat.
        request: What the decoder reads.
        positions: Decoder positions of its memories.
        compressed_tokens: Tokens of long messages that are read as memory.
        max_new_tokens: Most tokens of the answer.
    """

    work: ChatWork
    request: Request
    positions: int
    compressed_tokens: int
    max_new_tokens: int


class ChatReader:
    """Makes chats ready for the decoder; for one thread.

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

    def prepare(self, work: ChatWork) -> ReadyChat:
        """What the decoder reads for a chat; long messages are compressed here.

        Raises:
            RequestError: If its time is up (504), or it does not fit the context window.
            IncompatibleMemoryError: If another adapter or base model made a memory.
            InputError: If there is no question.
        """
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
        return ReadyChat(
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
