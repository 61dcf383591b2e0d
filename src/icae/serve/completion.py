"""``/v1/completions``."""

from __future__ import annotations

import secrets
import time

from fastapi import Request
from fastapi.responses import StreamingResponse

from icae.serve.chat import require_model
from icae.serve.chats import Answered
from icae.serve.completion_models import (
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    TextCompletion,
)
from icae.serve.requests import Owner, Serving, keyed_router
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


@router.post(
    "/v1/completions",
    response_model=TextCompletion,
    responses=told_of("The answers"),
)
async def complete(
    asked: CompletionRequest, request: Request, service: Serving, owner: Owner
) -> TextCompletion | StreamingResponse:
    """Go on with prompts, at once or streamed."""
    require_model(service, asked.model)
    count = len(asked.prompt) * asked.answers
    chats = chats_of(service, owner, asked, count)
    name, created = f"cmpl-{secrets.token_hex(12)}", int(time.time())
    if asked.stream:
        head: Json = {"id": name, "object": "text_completion", "created": created}
        return await streamed(service, chats, _TextPieces({**head, "model": service.model}, asked))
    found = await answers(service, request, chats)
    return TextCompletion(
        id=name,
        created=created,
        model=service.model,
        choices=[
            CompletionChoice(
                text=one.text if one.echo is None else one.echo.text + one.text,
                index=index,
                logprobs=_logprobs(asked, one),
                finish_reason=one.finish_reason,
            )
            for index, one in enumerate(found)
        ],
        usage=usage_of(found, each=asked.answers),
        icae=figures_of(found),
    )


class _TextPieces(Pieces):
    """Pieces of a text; log-probabilities come with the last one."""

    def __init__(self, head: Json, asked: CompletionRequest) -> None:
        super().__init__(head)
        self._asked = asked

    def begin(self) -> list[Json]:
        return []

    def text(self, piece: str) -> Json:
        return {"text": piece, "logprobs": None, "finish_reason": None}

    def end(self, answered: Answered) -> Json:
        told = _logprobs(self._asked, answered)
        logprobs = None if told is None else told.model_dump()
        return {"text": "", "logprobs": logprobs, "finish_reason": answered.finish_reason}


def _logprobs(asked: CompletionRequest, answered: Answered) -> CompletionLogprobs | None:
    if asked.logprobs is None:
        return None
    return CompletionLogprobs.of(answered.logprobs, answered.echo)
