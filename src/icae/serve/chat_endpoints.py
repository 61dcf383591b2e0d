"""``/v1/models`` and ``/v1/chat/completions``."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from icae.errors import RequestError
from icae.serve.bodies import (
    Body,
    chunk_body,
    completion_body,
    error_body,
    figures_body,
    finish_reason,
    model_body,
    refusal,
    usage_body,
)
from icae.serve.chat_request import ChatRequest, parse_chat
from icae.serve.chat_work import Answered, ChatWork
from icae.serve.incoming import read_json
from icae.serve.service import Service
from icae.serve.waiting import settled

LOOKS_EVERY_S = 1.0
"""How often it is looked whether a client still waits for its answer, s."""


@dataclass(frozen=True, kw_only=True)
class ChatEndpoints:
    """Answers chats.

    Attributes:
        service: What they are answered with.
    """

    service: Service

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name:path}", self.model, methods=["GET"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        """The one model that is served, as a list."""
        self.service.owner(request)
        model = model_body(self.service.model, created=self.service.created)
        return JSONResponse({"object": "list", "data": [model]})

    async def model(self, request: Request) -> Response:
        """The model, by its name."""
        self.service.owner(request)
        if request.path_params["name"] != self.service.model:
            raise RequestError("There is no such model.", status=404, code="model_not_found")
        return JSONResponse(model_body(self.service.model, created=self.service.created))

    async def chat(self, request: Request) -> Response:
        """Answer a chat, at once or streamed."""
        service = self.service
        owner = service.owner(request)
        with service.arriving.held(owner):
            raw = await read_json(request, service.limits)
            wanted = parse_chat(raw, model=service.model)
            work = await self._work(owner, wanted)
            head = {
                "id": f"chatcmpl-{secrets.token_hex(12)}",
                "created": int(time.time()),
                "model": service.model,
            }
            if wanted.stream:
                return await self._streamed(work, head)
            service.worker.submit_chat(work)
            return JSONResponse(completion_body(await self._answered(request, work), head))

    async def _work(self, owner: str, wanted: ChatRequest) -> ChatWork:
        shelf, desk = self.service.shelf, self.service.desk
        memories = []
        for memory_id in wanted.memory_ids:
            try:
                memories.append(await asyncio.to_thread(shelf.load, owner, memory_id))
            except RequestError as error:
                work = desk.work_on(owner, memory_id)
                if error.status != 404 or work is None:
                    raise
                raise RequestError(
                    "The memory is not ready.",
                    status=409,
                    code="memory_not_ready",
                    got=memory_id,
                    retry_after_s=1,
                ) from error
        return ChatWork(
            owner=owner,
            request=wanted,
            memories=memories,
            deadline=time.monotonic() + self.service.limits.request_seconds,
        )

    async def _answered(self, request: Request, work: ChatWork) -> Answered:
        """The whole answer, or an error when its time is up; given up if the client goes."""
        try:
            while (left := work.deadline - time.monotonic()) > 0:
                if await settled(work.future, seconds=min(left, LOOKS_EVERY_S)):
                    return work.future.result()
                if await request.is_disconnected():
                    raise RequestError("The client is gone.", status=499, code="client_gone")
        finally:
            work.stop.set()
            work.future.cancel()
        raise _late()

    async def _streamed(self, work: ChatWork, head: Body) -> Response:
        """Wait for the first piece, so that an error has a status, then send."""
        pieces = _Pieces()
        work.on_text = pieces.put
        self.service.worker.submit_chat(work)
        work.future.add_done_callback(pieces.end)
        stream = self._pieces(work, pieces)
        first = await anext(stream, None)
        if first is None:
            work.future.result()  # raises where there is no answer
        return StreamingResponse(
            self._events(work, head, first, stream), media_type="text/event-stream"
        )

    async def _pieces(self, work: ChatWork, pieces: _Pieces) -> AsyncIterator[str]:
        """Pieces of the answer until it ends."""
        while True:
            left = work.deadline - time.monotonic()
            try:
                piece = await asyncio.wait_for(pieces.queue.get(), timeout=max(left, 0.0))
            except TimeoutError:
                raise _late() from None
            finally:
                if work.deadline <= time.monotonic():
                    work.stop.set()
                    work.future.cancel()
            if piece is None:
                return
            yield piece

    async def _events(
        self, work: ChatWork, head: Body, first: str | None, stream: AsyncIterator[str]
    ) -> AsyncIterator[str]:
        """Server-sent events of an answer."""
        try:
            yield _event(chunk_body({"role": "assistant", "content": ""}, head))
            if first is not None:
                yield _event(chunk_body({"content": first}, head))
            async for piece in stream:
                yield _event(chunk_body({"content": piece}, head))
            answered = work.future.result()
            last = chunk_body({}, head, finish_reason(answered))
            yield _event({**last, "icae": figures_body(answered)})
            if work.request.include_usage:
                usage = {"choices": [], "usage": usage_body(answered)}
                yield _event({**chunk_body({}, head), **usage})
            yield "data: [DONE]\n\n"
        except Exception as error:
            yield _event(error_body(refusal(error)))
        finally:
            work.stop.set()
            work.future.cancel()


class _Pieces:
    """Brings pieces of an answer from the model's thread into the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()

    def put(self, piece: str | None) -> None:
        """Hand on a piece; called in the model's thread."""
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self.queue.put_nowait, piece)

    def end(self, future: Future[Any]) -> None:
        """Hand on that there is no more."""
        self.put(None)


def _event(body: Body) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _late() -> RequestError:
    return RequestError("The time for the answer is up.", status=504, code="timeout")
