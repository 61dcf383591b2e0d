"""``/v1/models`` and ``/v1/chat/completions``."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import Request
from fastapi.responses import StreamingResponse

from icae.errors import RequestError
from icae.serve.chat_models import (
    AnswerMessage,
    ChatRequest,
    Choice,
    Completion,
    Model,
    ModelList,
)
from icae.serve.chats import Answered, Chat, too_late
from icae.serve.refusals import ErrorBody, error_body
from icae.serve.requests import Owner, Serving, keyed_router
from icae.serve.service import Service, settled

LOOKS_EVERY_S = 1.0
"""How often it is looked whether a client still waits for its answer, s."""

Json = dict[str, object]

router = keyed_router()


@router.get("/v1/models")
def models(service: Serving) -> ModelList:
    """The model that is served, as a list."""
    return ModelList(data=[Model(id=service.model, created=service.created)])


@router.get("/v1/models/{name:path}")
def model(name: str, service: Serving) -> Model:
    """The model that is served, by its name."""
    _require_model(service, name)
    return Model(id=service.model, created=service.created)


@router.post(
    "/v1/chat/completions",
    response_model=Completion,
    responses={
        200: {
            "description": "The answer; with `stream`, server-sent events of pieces, the last one "
            "[DONE].",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        504: {"model": ErrorBody},
    },
)
async def chat(
    asked: ChatRequest, request: Request, service: Serving, owner: Owner
) -> Completion | StreamingResponse:
    """Answer a chat, at once or streamed."""
    _require_model(service, asked.model)
    waiting = Chat(
        owner=owner,
        request=asked,
        memories=await asyncio.to_thread(service.library.load_ready, owner, asked.memory_ids),
        deadline=time.monotonic() + service.config.request_seconds,
    )
    name, created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
    if asked.stream:
        head: Json = {"id": name, "created": created, "model": service.model}
        return await _streamed(service, waiting, head)
    service.worker.submit_chat(waiting)
    answered = await _answered(request, waiting)
    message = AnswerMessage(content=answered.text)
    return Completion(
        id=name,
        created=created,
        model=service.model,
        choices=[Choice(message=message, finish_reason=answered.finish_reason)],
        usage=answered.usage,
        icae=answered.figures,
    )


def _require_model(service: Service, name: str) -> None:
    if name != service.model:
        raise RequestError(
            "There is no such model.",
            status=404,
            code="model_not_found",
            param="model",
            got=repr(name)[:80],
            expected=service.model,
        )


async def _answered(request: Request, chat: Chat) -> Answered:
    """The whole answer, or an error when its time is up; given up if the client goes."""
    try:
        while (left := chat.deadline - time.monotonic()) > 0:
            if await settled(chat.future, seconds=min(left, LOOKS_EVERY_S)):
                return chat.future.result()
            if await request.is_disconnected():
                raise RequestError("The client is gone.", status=499, code="client_gone")
    finally:
        chat.give_up()
    raise too_late()


async def _streamed(service: Service, chat: Chat, head: Json) -> StreamingResponse:
    """Wait for the first piece, so that an error has a status, then send."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def put(piece: str | None) -> None:
        """Called in the model's thread."""
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            loop.call_soon_threadsafe(queue.put_nowait, piece)

    chat.on_text = put
    service.worker.submit_chat(chat)
    chat.future.add_done_callback(lambda _: put(None))
    pieces = _pieces(chat, queue)
    first = await anext(pieces, None)
    if first is None:
        chat.future.result()  # raises where there is no answer
    return StreamingResponse(
        _events(chat, head, first or "", pieces), media_type="text/event-stream"
    )


async def _pieces(chat: Chat, queue: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    """Pieces of the answer until it ends or its time is up."""
    while True:
        left = chat.deadline - time.monotonic()
        try:
            piece = await asyncio.wait_for(queue.get(), timeout=max(left, 0.0))
        except TimeoutError:
            chat.give_up()
            raise too_late() from None
        if piece is None:
            return
        yield piece


async def _events(
    chat: Chat, head: Json, first: str, pieces: AsyncIterator[str]
) -> AsyncIterator[str]:
    try:
        yield _chunk(head, {"role": "assistant", "content": ""})
        if first:
            yield _chunk(head, {"content": first})
        async for piece in pieces:
            yield _chunk(head, {"content": piece})
        answered = chat.future.result()
        yield _chunk(head, {}, answered.finish_reason, icae=answered.figures.model_dump())
        if chat.request.include_usage:
            yield _chunk(head, {}, choices=[], usage=answered.usage.model_dump())
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(error_body(error).model_dump())
    finally:
        chat.give_up()


def _chunk(head: Json, delta: Json, finish: str | None = None, **more: object) -> str:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _event({**head, "object": "chat.completion.chunk", "choices": [choice], **more})


def _event(body: Json) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
