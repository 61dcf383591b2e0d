"""Chats that wait for an answer: what the decoder reads for them, and what they get.

Nothing here knows HTTP; the worker's thread alone calls `Chats`.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from icae.decode.conversation import Conversation
from icae.decode.prefix import Generated, Request
from icae.decode.sampling import Likely, prompt_likely
from icae.engine import Engine
from icae.errors import IcaeError, RequestError
from icae.memory import Memory, merge
from icae.model.prompts import takes_tools, tokenize
from icae.serve.answer_models import AnswerRequest, Figures, TokenLogprob, Usage
from icae.serve.chat_models import ChatRequest, no_tools
from icae.serve.completion_models import CompletionRequest
from icae.serve.config import ServerConfig
from icae.serve.jobs import Progressing
from icae.serve.likely import Echo, told
from icae.serve.messages import Messages, Said, conversation, without_instructions
from icae.serve.metrics import Metrics
from icae.serve.older_turns import OlderTurns
from icae.serve.stops import StoppedStream
from icae.serve.tracing import client_gone, request_id

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An answer; its reason is ``stop`` if the model or a stop text ended it, else ``length``."""

    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: Sequence[TokenLogprob]
    echo: Echo | None
    usage: Usage
    figures: Figures


@dataclass(kw_only=True, eq=False)
class Chat:
    """A chat that waits for its answer.

    Attributes:
        owner: Who asks.
        memories: The memories it refers to.
        said: What its messages say, when they have been read.
        told: The conversation before its question, from then on.
        question: What is asked.
        deadline: When it is too late to begin (`time.monotonic`).
        index: Which of several answers to one request this is.
        submitted_at: When it began to wait (`time.monotonic`).
        on_text: Called in the model's thread with each piece of a streamed answer, or None.
        request_id: Of the HTTP request, for the log.
        future: Gets the answer, or the error.
        stop: Set when nobody waits for the rest of the answer.
        ending: Why it was stopped, if the client is to be told.
        gone: Set when the client has gone away.
    """

    owner: str
    request: ChatRequest | CompletionRequest
    memories: Sequence[Memory]
    deadline: float
    said: Said | None = None
    told: Conversation | None = None
    question: str = ""
    index: int = 0
    submitted_at: float = field(default_factory=time.monotonic)
    request_id: str | None = field(default_factory=request_id)
    on_text: Callable[[str], None] | None = None
    future: Future[Answered] = field(default_factory=Future)
    stop: threading.Event = field(default_factory=threading.Event)
    ending: RequestError | None = None
    gone: threading.Event = field(default_factory=client_gone)

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.gone.is_set() or self.stop.is_set() or self.future.cancelled()

    def fail(self, error: Exception) -> None:
        """Give the error in place of an answer."""
        if not isinstance(error, IcaeError):
            log.error("The answer to request %s failed.", self.request_id, exc_info=error)
        self.future.set_exception(self.ending or error)

    def give_up(self) -> None:
        """Stop an answer that nobody waits for any more."""
        self.stop.set()
        self.future.cancel()


def too_late() -> RequestError:
    """The error for an answer whose time is up."""
    return RequestError("The time for the answer is up.", status=504, code="timeout")


@dataclass(frozen=True, kw_only=True)
class ReadyChat:
    """A chat as the decoder reads it.

    Attributes:
        positions: Decoder positions of its memories.
        compressed_tokens: Tokens of long messages and old turns that are read as memory.
        echo: The prompt, where it stands before the answer.
    """

    chat: Chat
    request: Request
    positions: int
    compressed_tokens: int
    max_new_tokens: int
    echo: Echo | None = None


SHARE = 7 / 8
"""How much of the room for answers those may fill that have some: there is room for others."""


class Chats(ABC):
    """What answers chats; its length is how many were taken and have no answer yet."""

    def __init__(self, icae: Engine, *, config: ServerConfig, metrics: Metrics) -> None:
        if config.keep_turns is not None:
            icae.compressor.require_alone("Reading older turns as memory", fix="Keep all turns.")
        self.icae, self.config, self.metrics = icae, config, metrics
        self._messages = Messages(icae, config=config, metrics=metrics)
        self._older_turns = OlderTurns(self._messages.count)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def may_take(self, owner: str, coming: Counter[str]) -> bool:
        """Whether it takes one more chat of an owner now, beside those that come, by owner."""

    @abstractmethod
    def take(self, chats: Sequence[Chat]) -> None:
        """Take chats; the outcome of each, error or not, goes to its future."""

    @abstractmethod
    def step(self) -> None:
        """Write on, for a moment."""

    def preparing(self, chat: Chat) -> Progressing[None]:
        """Steps after which a chat can be taken: long messages and old turns are compressed."""
        if not isinstance(chat.request, ChatRequest):
            return
        chat.said = yield from self._messages.read(chat.owner, chat.request)
        memories = [*chat.memories, *chat.said.memories]
        documents = merge(memories) if memories else None
        chat.told = told = Conversation(
            reader=self.icae, documents=documents, older_positions=self.config.older_positions
        )
        if not chat.request.tools_at:
            chat.question, told.history = conversation(chat.said.texts)
            told.keep_turns = self.config.keep_turns or len(told.history)
            instructions, texts = without_instructions(chat.said.texts)
            if told.leaving and instructions:  # they do not leave with the first turn
                chat.question, told.history = conversation(texts)
                front = yield from self._messages.verbatim(instructions)
                told.documents = merge([front, *memories])
            yield from self._older_turns.fold(chat.owner, told, chat.question, self.compact)

    def compact(self, owner: str, told: Conversation, question: str) -> None:
        """Compress the old turns of a conversation."""
        told.compact(question)

    def request(self, owner: str, told: Conversation, question: str) -> Request:
        """What is read for a question of a conversation."""
        asked = self.icae.request(told.memory, question, history=told.history)
        return asked if self.config.keep_turns is None else replace(asked, owner=owner)

    def ready(self, chats: Sequence[Chat]) -> list[ReadyChat]:
        """Those of some chats, all prepared, that can be answered; others fail."""
        made = []
        for chat in chats:
            if not chat.future.set_running_or_notify_cancel():
                continue
            try:
                made.append(self._ready(chat))
            except Exception as error:
                chat.fail(error)
        return made

    def stream(self, chat: Chat) -> StoppedStream:
        """What makes text of the tokens of an answer."""
        return StoppedStream(self.icae.tokenizer, chat.on_text, chat.request.stop)

    def require_able(self, request: AnswerRequest) -> None:
        """Refuse what this way of answering does not do.

        Raises:
            RequestError: If a token of a bias is none of the vocabulary, or there are tools and the
                chat template has none.
        """
        at = request.tools_at if isinstance(request, ChatRequest) else None
        if at and not takes_tools(self.icae.tokenizer, self.icae.config.asking):
            raise no_tools(at)
        for token in request.sampling(0).logit_bias:
            if token >= self.icae.decoder.vocabulary:
                raise RequestError(
                    "logit_bias names no token.",
                    param="logit_bias",
                    got=str(token),
                    expected=f"below {self.icae.decoder.vocabulary}",
                )

    def finish(
        self,
        ready: ReadyChat,
        stream: StoppedStream,
        made: Generated,
        noted: Sequence[Likely] = (),
    ) -> None:
        """Give a chat its answer: its text, and the tokens it was made of."""
        text = stream.close()
        written, read = len(made.token_ids), made.positions
        self.metrics.answer_tokens.inc(written)
        self.metrics.prompt_tokens.inc(read)
        first_at = time.monotonic() - made.seconds + made.first_token_seconds
        self.metrics.first_token.observe(first_at - ready.chat.submitted_at)
        answered = Answered(
            text=ready.chat.request.written(text),
            logprobs=told(self.icae.tokenizer, noted[:written], length=len(text)),
            echo=ready.echo,
            finish_reason="stop" if made.stopped or stream.stopped else "length",
            usage=Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written),
            figures=Figures(
                memory_positions=ready.positions,
                compressed_tokens=ready.compressed_tokens,
                kv_bytes=self.icae.decoder.kv_bytes(read + written),
                seconds=round(made.seconds, 4),
                first_token_seconds=round(made.first_token_seconds, 4),
                runtime=self.icae.decoder.name,
            ),
        )
        ready.chat.future.set_result(answered)

    def _ready(self, chat: Chat) -> ReadyChat:
        if time.monotonic() > chat.deadline or chat.stop.is_set():
            raise too_late()
        self.require_able(chat.request)
        if isinstance(chat.request, CompletionRequest):
            return self._ready_prompt(chat, chat.request)
        return self._ready_messages(chat, chat.request)

    def _ready_prompt(self, chat: Chat, asked: CompletionRequest) -> ReadyChat:
        """A prompt as it is; one that is echoed is shown first, and scored where that is asked."""
        prompt, tokenizer = asked.prompt_of(chat.index), self.icae.tokenizer
        ids = tokenize(tokenizer, prompt) if isinstance(prompt, str) else np.array(prompt)
        if not 0 <= ids.min() <= ids.max() < self.icae.decoder.vocabulary:
            raise RequestError(
                "The prompt has ids of no tokens.",
                param="prompt",
                got=f"ids from {ids.min()} to {ids.max()}",
                expected=f"0 or more, below {self.icae.decoder.vocabulary}",
            )
        request = Request(prefix=None, prompt_ids=ids)
        limit = self._longest_answer(request, asked.longest_answer, param="prompt")
        echo = None
        if asked.echo:
            decoder, noted = self.icae.runtime.model.decoder, asked.noted
            echo = Echo(
                text=prompt if isinstance(prompt, str) else str(tokenizer.decode(prompt)),
                first=[str(tokenizer.decode(ids[:1].tolist()))],
                told=[] if noted is None else told(tokenizer, prompt_likely(decoder, ids, noted)),
            )
            if chat.on_text is not None:
                chat.on_text(echo.text)
        return ReadyChat(
            chat=chat,
            request=request,
            positions=0,
            compressed_tokens=0,
            max_new_tokens=limit,
            echo=echo,
        )

    def _ready_messages(self, chat: Chat, asked: ChatRequest) -> ReadyChat:
        """Messages as memory, history and question."""
        told, said = chat.told, chat.said
        assert told is not None, "it was prepared"
        assert said is not None, "it was prepared"
        memory = told.memory
        if asked.tools_at:
            texts = zip(asked.messages, said.texts, strict=True)
            messages = [message.rendered(text) for message, (_, text) in texts]
            request = self.icae.request_messages(memory, messages, tools=asked.offered)
        else:
            request = self.request(chat.owner, told, chat.question)
        compressed = [*said.memories, *filter(None, [told.older])]
        return ReadyChat(
            chat=chat,
            request=request,
            positions=0 if memory is None else memory.positions,
            compressed_tokens=sum(one.tokens for one in compressed),
            max_new_tokens=self._longest_answer(request, asked.longest_answer),
        )

    def _longest_answer(
        self, request: Request, asked: int | None, *, param: str = "messages"
    ) -> int:
        """How many tokens the answer may have."""
        room, window = self.icae.decoder.room(request), self.icae.decoder.context_window
        if room < (asked != 0):
            raise RequestError(
                "What is to be read does not fit the decoder's context window.",
                code="context_length_exceeded",
                param=param,
                got=f"{window - room} positions",
                expected=f"fewer than {window}",
                fix="Refer to fewer memories, make them at a higher ratio, or say less.",
            )
        most = self.config.answer_tokens
        return min(room, most if asked is None else min(asked, most))
