"""Answering chats together: new ones join those that are written, between two tokens."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from icae.decode.answering import TextStream, written_answer
from icae.decode.batching import ROWS_PER_BATCH, RowClock
from icae.decode.prefix import Generated
from icae.decode.torch_decoding import TorchDecoding
from icae.decode.torch_rows import Step
from icae.engine import Icae
from icae.errors import IcaeError, RequestError
from icae.serve.chat_reading import ChatReader, ReadyChat
from icae.serve.chat_work import Answered, ChatWork
from icae.serve.metrics import Metrics

READY_AHEAD = 16
"""Chats that are made ready while there is no room for them yet."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class _Writing:
    """An answer that is being written."""

    ready: ReadyChat
    clock: RowClock
    stream: TextStream


class ChatWriter:
    """Writes answers with one loaded model; for one thread.

    Args:
        icae: The model.
        reader: Makes chats ready.
        metrics: Counts.
        kept_bytes: Most bytes of key-value caches of memories that are kept.
    """

    def __init__(
        self, icae: Icae, reader: ChatReader, *, metrics: Metrics, kept_bytes: int
    ) -> None:
        self._icae = icae
        self._reader = reader
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
        """How many more chats it takes now."""
        return max(0, min(READY_AHEAD - len(self._ready), ROWS_PER_BATCH - len(self)))

    def take(self, works: Sequence[ChatWork]) -> None:
        """Take chats, at most `room`; the outcome of each, error or not, goes to its future."""
        for work in works:
            if not work.future.set_running_or_notify_cancel():
                continue
            try:
                self._ready.append(self._reader.prepare(work))
            except Exception as error:
                fail(work, error)

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
            self._written[key] = self._writing(ready)
        self._metrics.together.observe(len(self._written))
        requests = {key: (ready.request, ready.max_new_tokens) for key, ready in begun.items()}
        self._send(self._decoding.join(requests))

    def _writing(self, ready: ReadyChat) -> _Writing:
        return _Writing(
            ready=ready,
            clock=RowClock(begin=time.perf_counter()),
            stream=TextStream(self._icae.tokenizer, ready.work.on_text),
        )

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
        finish(self._icae, writing.ready, writing.stream.close(), made, metrics=self._metrics)

    def _give_up_stopped(self) -> None:
        """Let go of the chats whose clients are gone or whose time is up."""
        stopped = [k for k, w in self._written.items() if w.ready.work.stop.is_set()]
        self._decoding.leave(stopped)
        for key in stopped:
            fail(self._written.pop(key).ready.work, given_up())
        for ready in [ready for ready in self._ready if ready.work.stop.is_set()]:
            self._ready.remove(ready)
            fail(ready.work, given_up())

    def _fail_all(self, error: Exception) -> None:
        """After a mistake nothing is known about the answers under way: begin anew."""
        for ready in (*(writing.ready for writing in self._written.values()), *self._ready):
            fail(ready.work, error)
        self._written.clear()
        self._ready.clear()
        self._decoding = self._new_decoding()

    def _new_decoding(self) -> TorchDecoding:
        return TorchDecoding(
            self._icae.runtime, self._icae.answerer.stop_ids, kept_bytes=self._kept_bytes
        )


def finish(icae: Icae, ready: ReadyChat, text: str, made: Generated, *, metrics: Metrics) -> None:
    """Give a chat its answer.

    Args:
        icae: The model.
        ready: The chat.
        text: The text of the answer.
        made: Its tokens.
        metrics: Counts.
    """
    decoder = icae.decoder
    answer = written_answer(text, made, memory_positions=ready.positions, runtime=decoder.name)
    metrics.answer_tokens.inc(answer.answer_tokens)
    ready.work.future.set_result(
        Answered(
            answer=answer,
            compressed_tokens=ready.compressed_tokens,
            kv_bytes=decoder.kv_bytes(made.positions + answer.answer_tokens),
        )
    )


def fail(work: ChatWork, error: Exception) -> None:
    """Give a chat the error in place of an answer."""
    if not isinstance(error, IcaeError):
        log.error("An answer failed.", exc_info=error)
    work.future.set_exception(error)


def given_up() -> RequestError:
    """Why an answer was given up that nobody waits for."""
    return RequestError("The answer was stopped.", status=504, code="timeout")
