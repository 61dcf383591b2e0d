"""Waiting for the answers to one request, whole or as pieces of a stream."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from icae.errors import RequestError
from icae.memory import Memory
from icae.serve.answer_models import Figures, Usage
from icae.serve.chat_models import ChatRequest
from icae.serve.chats import Answered, Chat, too_late
from icae.serve.completion_models import CompletionRequest
from icae.serve.refusals import ErrorBody, error_body
from icae.serve.service import Service, settled

LOOKS_EVERY_S = 1.0
"""How often it is looked whether a client still waits for its answer, s."""

Json = dict[str, object]


class Pieces(ABC):
    """How the pieces of a streamed answer look.

    Attributes:
        head: Fields of every piece.
    """

    def __init__(self, head: Json) -> None:
        self.head = head

    @abstractmethod
    def begin(self) -> list[Json]:
        """Pieces before the first text of an answer."""

    @abstractmethod
    def text(self, piece: str) -> Json:
        """A piece of its text."""

    @abstractmethod
    def end(self, answered: Answered) -> Json:
        """What its last piece holds."""


def told_of(answers: str) -> dict[int | str, dict[str, Any]]:
    """What the description of an endpoint says of its responses."""
    return {
        200: {
            "description": f"{answers}; with `stream`, server-sent events of pieces, the last one "
            "[DONE].",
            "content": {"text/event-stream": {"schema": {"description": "A piece, or [DONE]."}}},
        },
        504: {"model": ErrorBody},
    }


def chats_of(
    service: Service,
    owner: str,
    asked: ChatRequest | CompletionRequest,
    count: int,
    memories: Sequence[Memory] = (),
) -> list[Chat]:
    """One chat for each answer to a request."""
    deadline = time.monotonic() + service.config.request_seconds
    return [
        Chat(owner=owner, request=asked, memories=memories, deadline=deadline, index=index)
        for index in range(count)
    ]


def submit(service: Service, chats: Sequence[Chat]) -> None:
    """Let chats wait for the model: all, or none where there is no room for one."""
    try:
        for chat in chats:
            service.worker.submit_chat(chat)
    except RequestError:
        _give_up(chats)
        raise


async def answers(service: Service, request: Request, chats: Sequence[Chat]) -> list[Answered]:
    """The whole answers, or an error when their time is up; given up if the client goes."""
    submit(service, chats)
    try:
        return [await _answered(request, chat) for chat in chats]
    finally:
        _give_up(chats)


async def streamed(service: Service, chats: Sequence[Chat], pieces: Pieces) -> StreamingResponse:
    """Wait for the first piece, so that an error has a status, then send."""
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[int, str | None]]()

    def put(index: int, piece: str | None) -> None:
        """Called in the model's thread."""
        with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            loop.call_soon_threadsafe(queue.put_nowait, (index, piece))

    def end(index: int, _: Future[Answered]) -> None:
        put(index, None)

    for chat in chats:
        chat.on_text = functools.partial(put, chat.index)
    submit(service, chats)
    for chat in chats:
        chat.future.add_done_callback(functools.partial(end, chat.index))
    coming = _coming(chats, queue)
    first = await anext(coming)
    if first[1] is None:
        _outcome(chats[first[0]])  # raises where there is no answer
    return StreamingResponse(_events(chats, first, coming, pieces), media_type="text/event-stream")


def usage_of(found: Sequence[Answered], *, each: int) -> Usage:
    """Tokens of all answers; a prompt that has several of them, `each`, counts once."""
    read = sum(one.usage.prompt_tokens for one in found[::each])
    written = sum(one.usage.completion_tokens for one in found)
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def figures_of(found: Sequence[Answered]) -> Figures:
    """What several answers cost together."""
    all_figures = [one.figures for one in found]
    return all_figures[0].model_copy(
        update={
            "kv_bytes": sum(one.kv_bytes for one in all_figures),
            "seconds": max(one.seconds for one in all_figures),
            "first_token_seconds": min(one.first_token_seconds for one in all_figures),
        }
    )


def _give_up(chats: Sequence[Chat]) -> None:
    for chat in chats:
        chat.give_up()


async def _answered(request: Request, chat: Chat) -> Answered:
    while (left := chat.deadline - time.monotonic()) > 0:
        if await settled(chat.future, seconds=min(left, LOOKS_EVERY_S)):
            return _outcome(chat)
        if await request.is_disconnected():
            raise _gone()
    raise too_late()


def _gone() -> RequestError:
    return RequestError("The client is gone.", status=499, code="client_gone")


def _outcome(chat: Chat) -> Answered:
    """The answer of a chat that has ended, or the error that it has instead."""
    if chat.future.cancelled():  # given up, as nobody waits for it
        raise _gone()
    return chat.future.result()


async def _coming(
    chats: Sequence[Chat], queue: asyncio.Queue[tuple[int, str | None]]
) -> AsyncIterator[tuple[int, str | None]]:
    """Pieces of the answers, each ended by None, until all have ended or their time is up."""
    left = len(chats)
    while left:
        seconds = chats[0].deadline - time.monotonic()
        try:
            index, piece = await asyncio.wait_for(queue.get(), timeout=max(seconds, 0.0))
        except TimeoutError:
            _give_up(chats)
            raise too_late() from None
        left -= piece is None
        yield index, piece


async def _events(
    chats: Sequence[Chat],
    first: tuple[int, str | None],
    coming: AsyncIterator[tuple[int, str | None]],
    pieces: Pieces,
) -> AsyncIterator[str]:
    def event(index: int, choice: Json, **more: object) -> str:
        own = {"index": index, **choice}
        return _event({**pieces.head, "choices": [own], **more})

    try:
        for chat in chats:
            for choice in pieces.begin():
                yield event(chat.index, choice)
        async for index, piece in _again(first, coming):
            if piece is not None:
                yield event(index, pieces.text(piece))
                continue
            answered = _outcome(chats[index])
            yield event(index, pieces.end(answered), icae=answered.figures.model_dump())
        asked = chats[0].request
        if asked.include_usage:
            found = [_outcome(chat) for chat in chats]
            usage = usage_of(found, each=asked.answers).model_dump()
            yield _event({**pieces.head, "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"
    except Exception as error:
        yield _event(error_body(error).model_dump())
    finally:
        _give_up(chats)


async def _again(
    first: tuple[int, str | None], coming: AsyncIterator[tuple[int, str | None]]
) -> AsyncIterator[tuple[int, str | None]]:
    yield first
    async for one in coming:
        yield one


def _event(body: Json) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
