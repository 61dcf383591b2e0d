"""Answering chats with a vLLM server, which batches them: each is a request of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from icae.decode.answering import TextStream
from icae.decode.vllm.runtime import VllmRuntime
from icae.engine import Icae
from icae.errors import ServiceError
from icae.serve.chat_reading import ChatReader, ReadyChat
from icae.serve.chat_work import ChatWork
from icae.serve.chat_writing import fail, finish, given_up
from icae.serve.metrics import Metrics

AT_ENGINE = 64
"""Most chats at the vLLM server at a time; others wait here."""

MOMENT_S = 0.01
"""How long a step waits for an answer to end before new chats are looked for, s."""

log = logging.getLogger(__name__)


class EngineWriter:
    """Has a vLLM server write answers; see `icae.serve.worker.Writer`.

    Memories and long messages are made ready in the thread that calls it; the answers are
    waited for in threads of their own.

    Args:
        icae: The model that compresses, answering in the engine.
        engine: The vLLM server.
        reader: Makes chats ready.
        metrics: Counts.
    """

    def __init__(
        self, icae: Icae, engine: VllmRuntime, reader: ChatReader, *, metrics: Metrics
    ) -> None:
        self._icae = icae
        self._engine = engine
        self._reader = reader
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(AT_ENGINE, thread_name_prefix="icae-engine")
        self._asked: set[Future[None]] = set()

    def __len__(self) -> int:
        """Chats that are being answered."""
        return len(self._asked)

    @property
    def room(self) -> int:
        """How many more chats it takes now."""
        return AT_ENGINE - len(self._asked)

    def take(self, works: Sequence[ChatWork]) -> None:
        """Send chats to the server; the outcome of each, error or not, goes to its future."""
        for work in works:
            if not work.future.set_running_or_notify_cancel():
                continue
            try:
                ready = self._reader.prepare(work)
            except Exception as error:
                fail(work, error)
                continue
            self._asked.add(self._pool.submit(self._attempt, ready))
        self._metrics.together.observe(len(self._asked))

    def step(self) -> None:
        """Wait a moment for answers to end."""
        _, self._asked = wait(self._asked, timeout=MOMENT_S, return_when=FIRST_COMPLETED)

    def _attempt(self, ready: ReadyChat) -> None:
        try:
            self._answer(ready)
        except Exception as error:
            if isinstance(error, ServiceError):
                log.warning("The engine did not answer: %s", error)
            fail(ready.work, error)

    def _answer(self, ready: ReadyChat) -> None:
        """Answer a chat; its owner's cache in the server is apart from all others'."""
        work = ready.work
        stream = TextStream(self._icae.tokenizer, work.on_text)

        def send(token: int) -> None:
            if work.stop.is_set():
                raise given_up()
            stream.add(token)

        made = self._engine.apart(work.owner).generate(
            ready.request.prefix,
            ready.request.prompt_ids,
            max_new_tokens=ready.max_new_tokens,
            stop_ids=self._icae.answerer.stop_ids,
            on_token=send,
        )
        finish(self._icae, ready, stream.close(), made, metrics=self._metrics)
