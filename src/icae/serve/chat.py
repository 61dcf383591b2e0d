"""``/v1/models`` and ``/v1/chat/completions``."""

from __future__ import annotations

import asyncio
import secrets
import time

from fastapi import Request
from fastapi.responses import StreamingResponse

from icae.errors import RequestError
from icae.serve.chat_models import (
    AnswerMessage,
    ChatRequest,
    Choice,
    ChoiceLogprobs,
    Completion,
    Model,
    ModelList,
)
from icae.serve.chats import Answered
from icae.serve.requests import Owner, Serving, keyed_router
from icae.serve.service import Service
from icae.serve.waiting import (
    Json,
    Pieces,
    answers,
    chats_of,
    figures_of,
    streamed,
    told_of,
    usage_of,
)

router = keyed_router()


@router.get("/v1/models")
def models(service: Serving) -> ModelList:
    """The model that is served, as a list."""
    return ModelList(data=[Model(id=service.model, created=service.created)])


@router.get("/v1/models/{name:path}")
def model(name: str, service: Serving) -> Model:
    """The model that is served, by its name."""
    require_model(service, name)
    return Model(id=service.model, created=service.created)


@router.post(
    "/v1/chat/completions",
    response_model=Completion,
    responses=told_of("The answer"),
)
async def chat(
    asked: ChatRequest, request: Request, service: Serving, owner: Owner
) -> Completion | StreamingResponse:
    """Answer a chat, at once or streamed."""
    require_model(service, asked.model)
    memories = await asyncio.to_thread(service.library.load_ready, owner, asked.memory_ids)
    chats = chats_of(service, owner, asked, asked.answers, memories)
    name, created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
    if asked.stream:
        head: Json = {"id": name, "created": created, "model": service.model}
        return await streamed(
            service, chats, _ChatPieces({**head, "object": "chat.completion.chunk"}, asked)
        )
    found = await answers(service, request, chats)
    return Completion(
        id=name,
        created=created,
        model=service.model,
        choices=[
            Choice(
                index=index,
                message=AnswerMessage(content=one.text),
                logprobs=_logprobs(asked, one),
                finish_reason=one.finish_reason,
            )
            for index, one in enumerate(found)
        ],
        usage=usage_of(found, each=asked.answers),
        icae=figures_of(found),
    )


class _ChatPieces(Pieces):
    """Pieces of a chat; log-probabilities come with the last one."""

    def __init__(self, head: Json, asked: ChatRequest) -> None:
        super().__init__(head)
        self._asked = asked

    def begin(self) -> list[Json]:
        return [self._piece({"role": "assistant", "content": ""})]

    def text(self, piece: str) -> Json:
        return self._piece({"content": piece})

    def end(self, answered: Answered) -> Json:
        told = _logprobs(self._asked, answered)
        logprobs = None if told is None else told.model_dump()
        return {"delta": {}, "logprobs": logprobs, "finish_reason": answered.finish_reason}

    def _piece(self, delta: Json) -> Json:
        return {"delta": delta, "logprobs": None, "finish_reason": None}


def _logprobs(asked: ChatRequest, answered: Answered) -> ChoiceLogprobs | None:
    return ChoiceLogprobs(content=list(answered.logprobs)) if asked.logprobs else None


def require_model(service: Service, name: str) -> None:
    """Refuse another model than the one that is served (404)."""
    if name != service.model:
        raise RequestError(
            "There is no such model.",
            status=404,
            code="model_not_found",
            param="model",
            got=repr(name)[:80],
            expected=service.model,
        )
