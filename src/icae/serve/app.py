"""The application: its endpoints, errors as JSON, start and end of the worker, and the page."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from icae.errors import IcaeError, RequestError
from icae.serve import chat, completion, memories
from icae.serve.guards import LoopbackOnly, Watched
from icae.serve.refusals import ErrorBody, error_response
from icae.serve.requests import Serving, keyed_router
from icae.serve.service import Service

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Health(BaseModel):
    """The server takes requests."""

    status: Literal["ok"] = "ok"
    model: str


_PROBED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in ("4XX", "503")
}

open_router = APIRouter()
watch_router = keyed_router()


@open_router.get("/health", responses=_PROBED)
async def health(service: Serving) -> Health:
    """Whether the server takes requests."""
    if not service.worker.alive:
        raise RequestError("The model does not run.", status=503, code="unavailable")
    return Health(model=service.model)


class State(BaseModel):
    """What a probe is told."""

    status: Literal["ok"] = "ok"


@open_router.get("/livez", responses=_PROBED)
async def livez() -> State:
    """Whether the process answers; it does not help to restart it because of anything else."""
    return State()


@open_router.get("/readyz", responses=_PROBED)
async def readyz(service: Serving) -> State:
    """Whether requests can be served: the model runs, and the store can be read and written."""
    service.worker.require_open()
    await asyncio.get_running_loop().run_in_executor(service.probes, service.library.require_ready)
    return State()


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


class Playground(StaticFiles):
    """A page and its files, with headers that let it load nothing else; it needs no key."""

    __name__ = "page"  # as metrics count it

    def __init__(self) -> None:
        super().__init__(directory=Path(__file__).parent / "playground", html=True)

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: MutableMapping[str, Any],
        status_code: int = 200,
    ) -> Response:
        """A file, or 304 if the browser has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_PAGE_HEADERS)
        return response


def make_app(service: Service, *, access_log: bool = False) -> FastAPI:
    """Put the application together; the worker runs from its start to its end.

    With `access_log` a JSON line about each request goes to standard error.
    Without keys requests that name another host than this machine are refused.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        await asyncio.to_thread(service.worker.close, seconds=service.config.grace_s)
        service.parsers.shutdown()
        await asyncio.to_thread(service.library.close)

    async def refused(request: Request, error: Exception) -> Response:
        return error_response(error)

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
            (IcaeError, RequestValidationError, HTTPException), refused
        ),
        middleware=[
            Middleware(Watched, metrics=service.metrics, access_log=access_log),
            *([Middleware(LoopbackOnly)] if service.keys.names is None else []),
        ],
        lifespan=lifespan,
    )
    app.state.service = service
    for router in (open_router, watch_router, chat.router, completion.router, memories.router):
        app.include_router(router)
    app.mount("/playground", Playground())
    return app
