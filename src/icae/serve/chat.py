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
    Figures,
    Model,
    ModelList,
    Usage,
)
from icae.serve.chat_work import Answered, ChatWork, too_late
from icae.serve.reading import Owner, Serving, keyed_router
from icae.serve.refusals import ErrorBody, error_body
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
    if name != service.model:
        raise _no_model(service, name)
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
    if asked.model != service.model:
        raise _no_model(service, asked.model)
    work = ChatWork(
        owner=owner,
        request=asked,
        memories=await asyncio.to_thread(service.library.load_ready, owner, asked.memory_ids),
        deadline=time.monotonic() + service.limits.request_seconds,
    )
    head: Json = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "created": int(time.time()),
        "model": service.model,
    }
    if asked.stream:
        return await _streamed(service, work, head)
    service.worker.submit_chat(work)
    answered = await _answered(request, work)
    choice = Choice(
        message=AnswerMessage(content=answered.answer.text), finish_reason=answered.finish_reason
    )
    return Completion.model_validate(
        {**head, "choices": [choice], "usage": _usage(answered), "icae": _figures(answered)}
    )


def _no_model(service: Service, name: str) -> RequestError:
    return RequestError(
        "There is no such model.",
        status=404,
        code="model_not_found",
        param="model",
        got=repr(name)[:80],
        expected=service.model,
    )


def _usage(answered: Answered) -> Usage:
    read, written = answered.answer.prompt_tokens, answered.answer.answer_tokens
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def _figures(answered: Answered) -> Figures:
    answer = answered.answer
    return Figures(
        memory_positions=answer.memory_positions,
        compressed_tokens=answered.compressed_tokens,
        kv_bytes=answered.kv_bytes,
        seconds=round(answer.seconds, 4),
        first_token_seconds=round(answer.first_token_seconds, 4),
        runtime=answer.runtime,
    )


async def _answered(request: Request, work: ChatWork) -> Answered:
    """The whole answer, or an error when its time is up; given up if the client goes."""
    try:
        while (left := work.deadline - time.monotonic()) > 0:
            if await settled(work.future, seconds=min(left, LOOKS_EVERY_S)):
                return work.future.result()
            if await request.is_disconnected():
                raise RequestError("The client is gone.", status=499, code="client_gone")
    finally:
        work.give_up()
    raise too_late()


async def _streamed(service: Service, work: ChatWork, head: Json) -> StreamingResponse:
    """Wait for the first piece, so that an error has a status, then send."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def put(piece: str | None) -> None:
        """Called in the model's thread."""
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            loop.call_soon_threadsafe(queue.put_nowait, piece)

    work.on_text = put
    service.worker.submit_chat(work)
    work.future.add_done_callback(lambda _: put(None))
    pieces = _pieces(work, queue)
    first = await anext(pieces, None)
    if first is None:
        work.future.result()  # raises where there is no answer
    return StreamingResponse(
        _events(work, head, first or "", pieces), media_type="text/event-stream"
    )


async def _pieces(work: ChatWork, queue: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    """Pieces of the answer until it ends or its time is up."""
    while True:
        left = work.deadline - time.monotonic()
        try:
            piece = await asyncio.wait_for(queue.get(), timeout=max(left, 0.0))
        except TimeoutError:
            work.give_up()
            raise too_late() from None
        if piece is None:
            return
        yield piece


async def _events(
    work: ChatWork, head: Json, first: str, pieces: AsyncIterator[str]
) -> AsyncIterator[str]:
    try:
        yield _event(_chunk(head, {"role": "assistant", "content": ""}))
        if first:
            yield _event(_chunk(head, {"content": first}))
        async for piece in pieces:
            yield _event(_chunk(head, {"content": piece}))
        answered = work.future.result()
        last = _chunk(head, {}, answered.finish_reason)
        yield _event({**last, "icae": _figures(answered).model_dump()})
        if work.request.include_usage:
            usage = _usage(answered).model_dump()
            yield _event({**_chunk(head, {}), "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(error_body(error).model_dump())
    finally:
        work.give_up()


def _chunk(head: Json, delta: Json, finish: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}


def _event(body: Json) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
