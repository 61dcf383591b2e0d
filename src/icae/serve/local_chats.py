"""Answering chats with the loaded model: new ones join those being written, between two tokens."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from icae.decode.batching import Step
from icae.decode.conversation import Conversation
from icae.decode.decoding import Decoding
from icae.decode.llama_decoding import LlamaDecoding
from icae.decode.llamacpp.runtime import LlamaCppRuntime
from icae.decode.prefix import Generated, Request, common_length
from icae.decode.sampling import Sampler
from icae.decode.torch_decoding import TorchDecoding
from icae.engine import Engine
from icae.errors import InputError
from icae.serve.chats import SHARE, Chat, Chats, ReadyChat, too_late
from icae.serve.config import ServerConfig
from icae.serve.jobs import SLICE_S, sliced
from icae.serve.metrics import Metrics
from icae.serve.stops import StoppedStream

READY_AHEAD = 16
"""Chats of an owner that are made ready while there is no room for them yet."""

PROMPT_TOKENS = 96
"""Tokens of prompts that are read between two tokens of others; more where that is quick."""


@dataclass(kw_only=True, eq=False)
class _Writing:
    """An answer that is being written."""

    ready: ReadyChat
    made: Generated
    stream: StoppedStream
    sampler: Sampler | None


class LocalChats(Chats):
    """Answers chats in one batch, in this process: with the loaded model or with llama.cpp."""

    def __init__(self, icae: Engine, *, config: ServerConfig, metrics: Metrics) -> None:
        super().__init__(icae, config=config, metrics=metrics)
        self._keys = itertools.count()
        self._begin_anew()

    def __len__(self) -> int:
        return len(self._ready_chats) + len(self._written)

    def may_take(self, owner: str, coming: Counter[str]) -> bool:
        """Whether few of the owner are ready."""
        ready = sum(one.chat.owner == owner for one in self._ready_chats)
        return ready + coming[owner] < READY_AHEAD

    def take(self, chats: Sequence[Chat]) -> None:
        """Make chats ready; of those that want no token, a prompt's scores alone, that is all."""
        for ready in self.ready(chats):
            if ready.max_new_tokens > 0:
                self._ready_chats.append(ready)
            else:
                made = Generated(positions=self._positions(ready.request))
                self.finish(ready, self.stream(ready.chat), made)

    def compact(self, owner: str, told: Conversation, question: str) -> None:
        """Compress old turns, in torch from what was read for the turn before."""
        runtime, decoding = self.icae.runtime, self._decoding
        if not isinstance(decoding, TorchDecoding):
            super().compact(owner, told, question)
            return
        before = runtime.last = decoding.last(self.request(owner, told, question))
        super().compact(owner, told, question)
        if runtime.last is not before and runtime.last is not None:
            decoding.keep(owner, runtime.last, instead=before)
        runtime.last = None

    def step(self) -> None:
        """Begin some answers, or write one token of all."""
        try:
            self._give_up_stopped()
            if joining := self._joining():
                self._begin(joining)
            elif self._decoding:
                begin = time.monotonic()
                self._send(self._decoding.step())
                self._pace(time.monotonic() - begin)
        except Exception as error:
            # After a mistake nothing is known about the answers under way.
            for ready in (*(one.ready for one in self._written.values()), *self._ready_chats):
                ready.chat.fail(error)
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._decoding = self._new_decoding()
        self._ready_chats: list[ReadyChat] = []
        self._joined: list[bool] = []  # those that joined since the last token: whether newcomers
        self._unread = 0  # prompt tokens of those that have begun and have no token yet
        self._most_unread = PROMPT_TOKENS
        self._written: dict[int, _Writing] = {}

    def _new_decoding(self) -> Decoding:
        stop_ids, kept_bytes = self.icae.answerer.stop_ids, self.config.kept_bytes
        if isinstance(self.icae.decoder, LlamaCppRuntime):
            one, other = (self.icae.request(None, text).prompt_ids for text in "ab")
            head = one[: common_length(one, other)]
            return LlamaDecoding(self.icae.decoder, stop_ids, kept_bytes=kept_bytes, head=head)
        return TorchDecoding(self.icae.runtime, stop_ids, kept_bytes=kept_bytes)

    def _joining(self) -> list[ReadyChat]:
        """Those that begin now, if some do before a token of the others is written.

        The next chat is one of the owner who has the fewest answers. Who has none begins apart from
        others, and has room kept for it; others begin once between two tokens.
        """
        rows = Counter(writing.ready.chat.owner for writing in self._written.values())
        left, tokens = list(self._ready_chats), 0
        joining: list[ReadyChat] = []
        new = any(not rows[ready.chat.owner] for ready in left)
        new &= self._joined[-1:] != [True]
        if self._decoding and not new and False in self._joined:
            self._joined = []
            return []
        while left and tokens < self._most_unread:
            ready = min(left, key=lambda one: rows[one.chat.owner])
            if new and rows[ready.chat.owner]:
                break
            asked = [(one.request, one.max_new_tokens) for one in (*joining, ready)]
            if self._decoding.joinable(asked, share=1.0 if new else SHARE) < len(asked):
                break
            left.remove(ready)
            joining.append(ready)
            rows[ready.chat.owner] += 1
            tokens += len(ready.request.prompt_ids)
        self._joined = [*self._joined[-1:], new] if joining else []
        return joining

    def _begin(self, joining: Sequence[ReadyChat]) -> None:
        self._ready_chats = [one for one in self._ready_chats if one not in joining]
        requests, samplers = {}, {}
        for ready, key in zip(joining, self._keys, strict=False):
            requests[key] = (ready.request, ready.max_new_tokens)
            sampling = ready.chat.request.sampling(ready.chat.index)
            samplers[key] = None if sampling.plain else Sampler(sampling)
            self._written[key] = _Writing(
                ready=ready,
                made=Generated(positions=self._positions(ready.request)),
                stream=self.stream(ready.chat),
                sampler=samplers[key],
            )
        self.metrics.together.observe(len(self._written))
        begin = time.monotonic()
        try:
            step = self._decoding.join(requests, samplers)
        except InputError as error:  # those under way are what they were
            for key in requests:
                self._written.pop(key).ready.chat.fail(error)
        else:
            self._send(step)
            self._unread = sum(len(ready.request.prompt_ids) for ready in joining)
            if step:
                self._pace(time.monotonic() - begin)

    def _pace(self, seconds: float) -> None:
        """Take note of how long it took to read prompts, if some were read."""
        if self._unread:
            self._most_unread = max(PROMPT_TOKENS, sliced(self._unread, seconds, SLICE_S))
        self._unread = 0

    def _send(self, step: Step) -> None:
        """Hand new tokens on, and finish the answers that have ended."""
        for key, token in step.items():
            writing = self._written[key]
            ready, made = writing.ready, writing.made
            made.take(token, self.icae.answerer.stop_ids)
            if not made.stopped:
                writing.stream.add(token)
            if writing.stream.stopped:
                self._decoding.leave([key])
            ended = made.stopped or writing.stream.stopped
            if ended or len(made.token_ids) >= ready.max_new_tokens:
                del self._written[key]
                noted = [] if writing.sampler is None else writing.sampler.noted
                self.finish(ready, writing.stream, made, noted)

    def _positions(self, request: Request) -> int:
        return len(self.icae.decoder.positions(request.prefix, len(request.prompt_ids)))

    def _give_up_stopped(self) -> None:
        """Let go of the chats whose clients are gone or whose time is up."""
        stopped = [k for k, w in self._written.items() if w.ready.chat.stop.is_set()]
        self._decoding.leave(stopped)
        for key in stopped:
            self._written.pop(key).ready.chat.fail(too_late())
        for ready in [ready for ready in self._ready_chats if ready.chat.stop.is_set()]:
            self._ready_chats.remove(ready)
            ready.chat.fail(too_late())
