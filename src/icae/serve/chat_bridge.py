"""Between chats and the decoder: what it reads for a chat, and the answer from what it wrote."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from icae.decode.answering import written_answer
from icae.decode.prefix import Generated, Request
from icae.engine import Engine
from icae.errors import RequestError
from icae.memory import Memory, merge
from icae.serve.chat_work import Answered, ChatWork, too_late
from icae.serve.limits import Limits
from icae.serve.metrics import Metrics

CACHED_BYTES = 256_000_000
"""Most bytes of slots of long messages that are kept for the next turn of a conversation."""


@dataclass(frozen=True, kw_only=True)
class ReadyChat:
    """A chat as the decoder reads it.

    Attributes:
        positions: Decoder positions of its memories.
        compressed_tokens: Tokens of long messages that are read as memory.
    """

    work: ChatWork
    request: Request
    positions: int
    compressed_tokens: int
    max_new_tokens: int


class ChatBridge:
    """Makes chats ready for the decoder, and gives them their answers; `ready` is for one thread.

    A message of more than `longest_message` tokens becomes memory at `ratio`; None: never.
    """

    def __init__(
        self,
        icae: Engine,
        *,
        limits: Limits,
        metrics: Metrics,
        longest_message: int | None,
        ratio: float,
    ) -> None:
        self.icae = icae
        self._limits = limits
        self._metrics = metrics
        self._longest_message = longest_message
        self._ratio = ratio
        self._cached: OrderedDict[tuple[str, str], Memory] = OrderedDict()

    def ready(self, works: Sequence[ChatWork]) -> list[ReadyChat]:
        """Those of some chats that can be answered, long messages compressed; others fail."""
        made = []
        for work in works:
            if not work.future.set_running_or_notify_cancel():
                continue
            try:
                made.append(self._ready(work))
            except Exception as error:
                work.fail(error)
        return made

    def _ready(self, work: ChatWork) -> ReadyChat:
        if time.monotonic() > work.deadline or work.stop.is_set():
            raise too_late()
        memories, said, compressed = list(work.memories), [], 0
        longest = work.request.auto_compress
        longest = self._longest_message if longest is None else longest
        for message in work.request.messages:
            text, bulk = message.text, ""
            if longest:
                text, bulk = split_message(
                    message.role, text, longest=longest, count=self.icae.count_tokens
                )
            if bulk:
                memories.append(self._memory_of(work.owner, bulk))
                compressed += memories[-1].tokens
            said.append((message.role, text))
        question, history = conversation(said)
        memory = merge(memories) if memories else None
        request = self.icae.request(memory, question, history=history)
        return ReadyChat(
            work=work,
            request=request,
            positions=0 if memory is None else memory.positions,
            compressed_tokens=compressed,
            max_new_tokens=self._room(request, work.request.longest_answer),
        )

    def finish(self, ready: ReadyChat, text: str, made: Generated) -> None:
        """Give a chat its answer: a text, and the tokens it was made of."""
        decoder = self.icae.decoder
        answer = written_answer(text, made, memory_positions=ready.positions, runtime=decoder.name)
        self._metrics.answer_tokens.inc(answer.answer_tokens)
        ready.work.future.set_result(
            Answered(
                answer=answer,
                compressed_tokens=ready.compressed_tokens,
                kv_bytes=decoder.kv_bytes(made.positions + answer.answer_tokens),
            )
        )

    def _room(self, request: Request, asked: int | None) -> int:
        """How many tokens the answer may have."""
        decoder = self.icae.decoder
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
        tokens = self.icae.count_tokens(text)
        if tokens / self._ratio > self.icae.decoder.context_window:
            raise RequestError(
                "A message is too long, even as memory.",
                code="context_length_exceeded",
                param="messages",
                got=f"{tokens} tokens at {self._ratio:g}x",
                expected=f"at most {self.icae.decoder.context_window} positions",
            )
        memory = self.icae.compress(text, ratio=self._ratio, name="message", verify=False)
        self._metrics.context_tokens.inc(memory.tokens)
        self._cached[key] = memory
        while sum(kept.slots.nbytes for kept in self._cached.values()) > CACHED_BYTES:
            self._cached.popitem(last=False)
        return memory


def split_message(
    role: str, text: str, *, longest: int, count: Callable[[str], int]
) -> tuple[str, str]:
    """Take the bulk of a long message out, so that a long prompt gets short.

    Of what the user says the first and the last paragraph stay text where they are short,
    since one of them usually is the question; what the system says is taken whole.

    A message of at most `longest` tokens, as `count` counts them, stays as it is; a paragraph
    at the start or end of a longer one stays if it has at most half of them.

    Returns:
        The text that stays, and the text that becomes a memory; either may be empty.
    """
    if role == "assistant" or count(text) <= longest:
        return text, ""
    if role != "user":
        return "", text
    for mark in ("\n\n", "\n"):
        parts = [part for part in text.split(mark) if part.strip()]
        last = 1 if len(parts) > 1 and count(parts[-1]) <= longest // 2 else 0
        first = 1 if len(parts) > 1 + last and count(parts[0]) <= longest // 2 else 0
        if first or last:
            kept = [*parts[:first], *parts[len(parts) - last :]]
            return "\n\n".join(kept), mark.join(parts[first : len(parts) - last])
    return text, ""


def conversation(said: Sequence[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """The question that is to be answered, and the turns before it.

    What several messages say before an answer is one question, apart by blank lines.

    Returns:
        The question, and earlier (question, answer) turns.

    Raises:
        RequestError: If an answer comes before anything was said.
    """
    turns: list[tuple[str, str]] = []
    question: list[str] = []
    for role, text in said:
        if role != "assistant":
            question.append(text)
        elif question:
            turns.append((_joined(question), text))
            question = []
        elif turns:
            turns[-1] = (turns[-1][0], _joined([turns[-1][1], text]))
        else:
            raise RequestError(
                "The conversation starts with an answer.",
                param="messages",
                expected="a message of the system or the user first",
            )
    return _joined(question), turns


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(filter(None, texts))
