"""Answering chats with a vLLM server, which batches them: each is a request of its own."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing

from icae.decode.prefix import Generated
from icae.decode.sampling import Sampling
from icae.decode.vllm.runtime import VllmRuntime
from icae.engine import Engine
from icae.errors import RequestError, ServiceError
from icae.serve.answer_models import AnswerRequest
from icae.serve.chats import SHARE, Chat, Chats, ReadyChat, too_late
from icae.serve.config import ServerConfig
from icae.serve.metrics import Metrics
from icae.serve.stops import StoppedStream

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
        self._asked: dict[Future[None], str] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def may_take(self, owner: str, coming: Counter[str]) -> bool:
        """Whether there is room; the last of it is for owners who have none there."""
        there = Counter(self._asked.values()) + coming
        return there.total() < AT_SERVER * (SHARE if there[owner] else 1)

    def take(self, chats: Sequence[Chat]) -> None:
        """Send chats to the server."""
        for ready in self.ready(chats):
            self._asked[self._pool.submit(self._answer, ready)] = ready.chat.owner
        self.metrics.together.observe(len(self._asked))

    def step(self) -> None:
        """Wait a moment for answers to end."""
        wait(self._asked, timeout=MOMENT_S, return_when=FIRST_COMPLETED)
        self._asked = {one: owner for one, owner in self._asked.items() if not one.done()}

    def require_able(self, request: AnswerRequest) -> None:
        """Refuse log-probabilities, which are not taken from the server."""
        super().require_able(request)
        if request.noted is not None:
            raise RequestError(
                "logprobs is not supported.",
                code="unsupported_parameter",
                param="logprobs",
                fix="Leave it out, or serve without --engine.",
            )

    def _answer(self, ready: ReadyChat) -> None:
        """Answer a chat; its owner's cache in the server is apart from all others'."""
        try:
            self._write(ready, self.stream(ready.chat))
        except Exception as error:
            if isinstance(error, ServiceError):
                log.warning("The vLLM server did not answer: %s", error)
            ready.chat.fail(error)

    def _write(self, ready: ReadyChat, stream: StoppedStream) -> None:
        """Take tokens until the answer ends; what is left of it ends at the server, too."""
        request, stop_ids = ready.request, self.icae.answerer.stop_ids
        sampling = ready.chat.request.sampling(ready.chat.index)
        server = self._server.apart(ready.chat.owner, _fields(sampling))
        made = Generated(positions=len(server.positions(request.prefix, len(request.prompt_ids))))
        with closing(server.tokens(request, ready.max_new_tokens, stop_ids)) as tokens:
            for token in tokens:
                if ready.chat.stop.is_set():
                    raise too_late()
                made.take(token, stop_ids)
                if made.stopped:
                    break
                stream.add(token)
                if stream.stopped:
                    break
        self.finish(ready, stream, made)


def _fields(sampling: Sampling) -> dict[str, object]:
    """Sampling in the fields of vLLM's API."""
    if sampling.plain:
        return {}
    fields: dict[str, object] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    return fields if sampling.seed is None else {**fields, "seed": sampling.seed}
