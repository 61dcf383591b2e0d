"""The application: its endpoints, errors as JSON, counts, start and end of the worker."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from icae.errors import IcaeError, RequestError
from icae.serve import chat, memories
from icae.serve.loopback import LoopbackOnly
from icae.serve.metrics import Metrics
from icae.serve.page import Playground
from icae.serve.reading import Serving, keyed_router
from icae.serve.refusals import ErrorBody, error_response
from icae.serve.service import Service

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger(__name__)


class Health(BaseModel):
    """The server takes requests."""

    status: Literal["ok"] = "ok"
    model: str


open_router = APIRouter()
watch_router = keyed_router()


@open_router.get("/health", responses={status: {"model": ErrorBody} for status in ("4XX", "503")})
async def health(service: Serving) -> Health:
    """Whether the server takes requests."""
    if not service.worker.alive:
        raise RequestError("The model does not run.", status=503, code="unavailable")
    return Health(model=service.model)


@open_router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """The way to the playground."""
    return RedirectResponse("playground/", status_code=307)


@watch_router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(service: Serving) -> Response:
    """Counts for Prometheus."""
    return Response(service.metrics.text(), media_type=METRICS_TYPE)


def make_app(service: Service, *, local_only: bool, grace_s: float = 30.0) -> FastAPI:
    """Put the application together; the worker runs from its start to its end.

    With `local_only` requests that name another host than this machine are refused; documents
    have `grace_s` seconds to be finished at the end.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.worker.close(seconds=grace_s)
        service.parsers.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="icae",
        version="1",
        description="Chats in the format of OpenAI's API, and memories: compressed documents that "
        'messages refer to with a content part {"type": "memory", "id": ...}.',
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        # FastAPI's pages load their scripts from elsewhere: no use offline, nor with keys.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # as metrics count it
        exception_handlers=dict.fromkeys(
            (IcaeError, RequestValidationError, HTTPException), _refused
        ),
        middleware=[
            Middleware(Watched, metrics=service.metrics),
            *([Middleware(LoopbackOnly)] if local_only else []),
        ],
        lifespan=lifespan,
    )
    app.state.service = service
    for router in (open_router, watch_router, chat.router, memories.router):
        app.include_router(router)
    app.mount("/playground", Playground())
    return app


class Watched:
    """Counts responses, and makes up for mistakes of the server with an error that tells nothing.

    A HEAD is answered as a GET, without the body.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 0
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if status:
                raise
            log.exception("A request failed.")
            await error_response(error)(scope, receive, noting)
        finally:
            endpoint = getattr(scope.get("endpoint"), "__name__", "none")
            self._metrics.requests.labels(endpoint=endpoint, status=str(status or 500)).inc()
            self._metrics.seconds.labels(endpoint=endpoint).observe(time.perf_counter() - begin)


async def _refused(request: Request, error: Exception) -> Response:
    return error_response(error)
