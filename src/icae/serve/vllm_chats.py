"""Answering chats with a vLLM server, which batches them: each is a request of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from icae.decode.answering import TextStream
from icae.decode.vllm.runtime import VllmRuntime
from icae.engine import Engine
from icae.errors import ServiceError
from icae.serve.chats import Chat, Chats, ReadyChat, too_late
from icae.serve.config import ServerConfig
from icae.serve.metrics import Metrics

AT_SERVER = 64
"""Most chats at the vLLM server at a time; others wait here."""

MOMENT_S = 0.01
"""How long a step waits for an answer to end before new chats are looked for, s."""

log = logging.getLogger(__name__)


class VllmChats(Chats):
    """Has a vLLM server answer chats; the loaded model compresses.

    Memories and long messages are made ready in the thread that calls it; the answers are
    waited for in threads of their own.
    """

    def __init__(
        self, icae: Engine, server: VllmRuntime, *, config: ServerConfig, metrics: Metrics
    ) -> None:
        super().__init__(icae.answering_in(server), config=config, metrics=metrics)
        self._server = server
        self._pool = ThreadPoolExecutor(AT_SERVER, thread_name_prefix="icae-vllm")
        self._asked: set[Future[None]] = set()

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def room(self) -> int:
        """How many more chats it takes now."""
        return AT_SERVER - len(self._asked)

    def take(self, chats: Sequence[Chat]) -> None:
        """Send chats to the server."""
        for ready in self.ready(chats):
            self._asked.add(self._pool.submit(self._answer, ready))
        self.metrics.together.observe(len(self._asked))

    def step(self) -> None:
        """Wait a moment for answers to end."""
        _, self._asked = wait(self._asked, timeout=MOMENT_S, return_when=FIRST_COMPLETED)

    def _answer(self, ready: ReadyChat) -> None:
        """Answer a chat; its owner's cache in the server is apart from all others'."""
        chat, stream = ready.chat, TextStream(self.icae.tokenizer, ready.chat.on_text)

        def send(token: int) -> None:
            if chat.stop.is_set():
                raise too_late()
            stream.add(token)

        try:
            made = self._server.apart(chat.owner).generate(
                ready.request.prefix,
                ready.request.prompt_ids,
                max_new_tokens=ready.max_new_tokens,
                stop_ids=self.icae.answerer.stop_ids,
                on_token=send,
            )
            self.finish(ready, stream.close(), made)
        except Exception as error:
            if isinstance(error, ServiceError):
                log.warning("The vLLM server did not answer: %s", error)
            chat.fail(error)
