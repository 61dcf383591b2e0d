"""Answering chats with the loaded model: new ones join those being written, between two tokens."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from icae.decode.batching import ROWS_PER_BATCH, Step
from icae.decode.decoding import Decoding
from icae.decode.llama_decoding import LlamaDecoding
from icae.decode.llamacpp.runtime import LlamaCppRuntime
from icae.decode.prefix import Generated, Request, common_length
from icae.decode.sampling import Sampler
from icae.decode.torch_decoding import TorchDecoding
from icae.engine import Engine
from icae.errors import InputError
from icae.serve.chats import Chat, Chats, ReadyChat, too_late
from icae.serve.config import ServerConfig
from icae.serve.metrics import Metrics
from icae.serve.stops import StoppedStream

READY_AHEAD = 16
"""Chats that are made ready while there is no room for them yet."""


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

    @property
    def room(self) -> int:
        """How many more chats it takes now."""
        return max(0, min(READY_AHEAD - len(self._ready_chats), ROWS_PER_BATCH - len(self)))

    def take(self, chats: Sequence[Chat]) -> None:
        """Make chats ready; of those that want no token, a prompt's scores alone, that is all."""
        for ready in self.ready(chats):
            if ready.max_new_tokens > 0:
                self._ready_chats.append(ready)
            else:
                made = Generated(positions=self._positions(ready.request))
                self.finish(ready, self.stream(ready.chat), made)

    def step(self) -> None:
        """Begin the answers that there is room for, and write one token of all others."""
        try:
            self._give_up_stopped()
            if self._decoding:
                self._send(self._decoding.step())
            self._begin()
        except Exception as error:
            # After a mistake nothing is known about the answers under way.
            for ready in (*(one.ready for one in self._written.values()), *self._ready_chats):
                ready.chat.fail(error)
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._decoding = self._new_decoding()
        self._ready_chats: deque[ReadyChat] = deque()
        self._written: dict[int, _Writing] = {}

    def _new_decoding(self) -> Decoding:
        stop_ids, kept_bytes = self.icae.answerer.stop_ids, self.config.kept_bytes
        if isinstance(self.icae.decoder, LlamaCppRuntime):
            one, other = (self.icae.request(None, text).prompt_ids for text in "ab")
            head = one[: common_length(one, other)]
            return LlamaDecoding(self.icae.decoder, stop_ids, kept_bytes=kept_bytes, head=head)
        return TorchDecoding(self.icae.runtime, stop_ids, kept_bytes=kept_bytes)

    def _begin(self) -> None:
        asked = [(ready.request, ready.max_new_tokens) for ready in self._ready_chats]
        count = self._decoding.joinable(asked)
        if count == 0:
            return
        requests, samplers = {}, {}
        for key in itertools.islice(self._keys, count):
            ready = self._ready_chats.popleft()
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
        try:
            step = self._decoding.join(requests, samplers)
        except InputError as error:  # those under way are what they were
            for key in requests:
                self._written.pop(key).ready.chat.fail(error)
        else:
            self._send(step)

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
