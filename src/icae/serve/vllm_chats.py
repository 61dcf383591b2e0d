"""Answering chats with a vLLM server, which batches them: each is a request of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from icae.decode.answering import TextStream
from icae.decode.vllm.runtime import VllmRuntime
from icae.errors import ServiceError
from icae.serve.chat_bridge import ChatBridge, ReadyChat
from icae.serve.chat_work import ChatWork, too_late
from icae.serve.metrics import Metrics

AT_SERVER = 64
"""Most chats at the vLLM server at a time; others wait here."""

MOMENT_S = 0.01
"""How long a step waits for an answer to end before new chats are looked for, s."""

log = logging.getLogger(__name__)


class VllmChats:
    """Has a vLLM server answer chats; see `icae.serve.worker.Chats`.

    Memories and long messages are made ready in the thread that calls it; the answers are
    waited for in threads of their own.
    """

    def __init__(self, bridge: ChatBridge, server: VllmRuntime, *, metrics: Metrics) -> None:
        self._bridge = bridge
        self._server = server
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(AT_SERVER, thread_name_prefix="icae-vllm")
        self._asked: set[Future[None]] = set()

    def __len__(self) -> int:
        """Chats that are being answered."""
        return len(self._asked)

    @property
    def room(self) -> int:
        """How many more chats it takes now."""
        return AT_SERVER - len(self._asked)

    def take(self, works: Sequence[ChatWork]) -> None:
        """Send chats to the server; the outcome of each, error or not, goes to its future."""
        for ready in self._bridge.ready(works):
            self._asked.add(self._pool.submit(self._answer, ready))
        self._metrics.together.observe(len(self._asked))

    def step(self) -> None:
        """Wait a moment for answers to end."""
        _, self._asked = wait(self._asked, timeout=MOMENT_S, return_when=FIRST_COMPLETED)

    def _answer(self, ready: ReadyChat) -> None:
        """Answer a chat; its owner's cache in the server is apart from all others'."""
        work, icae = ready.work, self._bridge.icae
        stream = TextStream(icae.tokenizer, work.on_text)

        def send(token: int) -> None:
            if work.stop.is_set():
                raise too_late()
            stream.add(token)

        try:
            made = self._server.apart(work.owner).generate(
                ready.request.prefix,
                ready.request.prompt_ids,
                max_new_tokens=ready.max_new_tokens,
                stop_ids=icae.answerer.stop_ids,
                on_token=send,
            )
            self._bridge.finish(ready, stream.close(), made)
        except Exception as error:
            if isinstance(error, ServiceError):
                log.warning("The vLLM server did not answer: %s", error)
            work.fail(error)
