"""Answering chats with the loaded model: new ones join those being written, between two tokens."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from icae.decode.answering import TextStream
from icae.decode.batching import ROWS_PER_BATCH, RowClock, Step
from icae.decode.torch_decoding import TorchDecoding
from icae.serve.chat_bridge import ChatBridge, ReadyChat
from icae.serve.chat_work import ChatWork, too_late
from icae.serve.metrics import Metrics

READY_AHEAD = 16
"""Chats that are made ready while there is no room for them yet."""


@dataclass(kw_only=True, eq=False)
class _Writing:
    """An answer that is being written."""

    ready: ReadyChat
    clock: RowClock
    stream: TextStream


class LocalChats:
    """Answers chats in one batch with the loaded model; see `icae.serve.worker.Chats`.

    Up to `kept_bytes` of key-value caches of memories are kept.
    """

    def __init__(self, bridge: ChatBridge, *, metrics: Metrics, kept_bytes: int) -> None:
        self._bridge = bridge
        self._icae = bridge.icae
        self._metrics = metrics
        self._kept_bytes = kept_bytes
        self._decoding = self._new_decoding()
        self._keys = itertools.count()
        self._ready: deque[ReadyChat] = deque()
        self._written: dict[int, _Writing] = {}

    def __len__(self) -> int:
        """Chats that are ready or being answered."""
        return len(self._ready) + len(self._written)

    @property
    def room(self) -> int:
        """How many more chats it takes."""
        return max(0, min(READY_AHEAD - len(self._ready), ROWS_PER_BATCH - len(self)))

    def take(self, works: Sequence[ChatWork]) -> None:
        """Take chats, at most `room`; the outcome of each, error or not, goes to its future."""
        self._ready += self._bridge.ready(works)

    def step(self) -> None:
        """Begin the answers that there is room for, and write one token of all others."""
        try:
            self._give_up_stopped()
            if self._decoding:
                self._send(self._decoding.step())
            self._begin()
        except Exception as error:
            self._fail_all(error)

    def _begin(self) -> None:
        asked = [(ready.request, ready.max_new_tokens) for ready in self._ready]
        count = self._decoding.joinable(asked)
        if count == 0:
            return
        begun = {next(self._keys): self._ready.popleft() for _ in range(count)}
        for key, ready in begun.items():
            self._written[key] = _Writing(
                ready=ready,
                clock=RowClock(begin=time.perf_counter()),
                stream=TextStream(self._icae.tokenizer, ready.work.on_text),
            )
        self._metrics.together.observe(len(self._written))
        requests = {key: (ready.request, ready.max_new_tokens) for key, ready in begun.items()}
        self._send(self._decoding.join(requests))

    def _send(self, step: Step) -> None:
        """Hand new tokens on, and finish the answers that have ended."""
        for key, token in zip(step.rows, step.tokens, strict=True):
            writing = self._written[key]
            writing.clock.take(token, self._icae.answerer.stop_ids)
            if not writing.clock.stopped:
                writing.stream.add(token)
            taken = len(writing.clock.token_ids)
            if writing.clock.stopped or taken >= writing.ready.max_new_tokens:
                del self._written[key]
                self._finish(writing)

    def _finish(self, writing: _Writing) -> None:
        request = writing.ready.request
        read = len(self._icae.decoder.positions(request.prefix, len(request.prompt_ids)))
        made = writing.clock.generated(positions=read)
        self._bridge.finish(writing.ready, writing.stream.close(), made)

    def _give_up_stopped(self) -> None:
        """Let go of the chats whose clients are gone or whose time is up."""
        stopped = [k for k, w in self._written.items() if w.ready.work.stop.is_set()]
        self._decoding.leave(stopped)
        for key in stopped:
            self._written.pop(key).ready.work.fail(too_late())
        for ready in [ready for ready in self._ready if ready.work.stop.is_set()]:
            self._ready.remove(ready)
            ready.work.fail(too_late())

    def _fail_all(self, error: Exception) -> None:
        """After a mistake nothing is known about the answers under way: begin anew."""
        for ready in (*(writing.ready for writing in self._written.values()), *self._ready):
            ready.work.fail(error)
        self._written.clear()
        self._ready.clear()
        self._decoding = self._new_decoding()

    def _new_decoding(self) -> TorchDecoding:
        return TorchDecoding(
            self._icae.runtime, self._icae.answerer.stop_ids, kept_bytes=self._kept_bytes
        )
