"""The ASGI application: endpoints, errors as JSON, counts, start and end of the worker."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from icae.errors import IcaeError, RequestError
from icae.serve.bodies import refusal
from icae.serve.chat_endpoints import ChatEndpoints
from icae.serve.loopback import LoopbackOnly
from icae.serve.memory_endpoints import MemoryEndpoints
from icae.serve.metrics import Metrics
from icae.serve.openapi import openapi_document
from icae.serve.page import page_routes
from icae.serve.service import Service, error_response

log = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(service: Service, *, local_only: bool, grace_s: float = 30.0) -> Starlette:
    """Put the application together; the worker runs from its start to its end.

    Args:
        service: What requests are served with.
        local_only: Whether requests that name another host than this machine are refused.
        grace_s: How long documents may take to be finished at the end, s.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.worker.close(seconds=grace_s)
        service.parsers.shutdown(wait=False, cancel_futures=True)

    async def health(request: Request) -> Response:
        if not service.worker.alive:
            raise RequestError("The model does not run.", status=503, code="unavailable")
        return JSONResponse({"status": "ok", "model": service.model})

    async def metrics(request: Request) -> Response:
        service.owner(request)
        return Response(service.metrics.text(), media_type=METRICS_TYPE)

    async def openapi(request: Request) -> Response:
        return JSONResponse(described)

    described = openapi_document()
    guards = [Middleware(LoopbackOnly)] if local_only else []
    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
            *ChatEndpoints(service=service).routes(),
            *MemoryEndpoints(service=service).routes(),
            *page_routes(),
        ],
        middleware=[Middleware(Counted, metrics=service.metrics), Middleware(Forgiving), *guards],
        exception_handlers={
            IcaeError: _refused,
            HTTPException: _refused_by_route,
        },
        lifespan=lifespan,
    )


class Counted:
    """Counts responses and their seconds.

    Args:
        app: What responds.
        metrics: Where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counting)
        finally:
            endpoint = getattr(scope.get("endpoint"), "__name__", "none")
            self._metrics.requests.labels(endpoint=endpoint, status=str(status)).inc()
            self._metrics.seconds.labels(endpoint=endpoint).observe(time.perf_counter() - begin)


class Forgiving:
    """Answers a mistake of the server with an error that tells nothing, and logs it.

    Args:
        app: What responds.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; where the response has not begun, make up for a mistake."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            log.exception("A request failed.")
            await error_response(refusal(error))(scope, receive, send)


async def _refused(request: Request, error: Exception) -> Response:
    return error_response(refusal(error))


async def _refused_by_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = "There is nothing at this address." if error.status_code == 404 else error.detail
    refused = error_response(
        RequestError(what, status=error.status_code, code=f"http_{error.status_code}")
    )
    refused.headers.update(error.headers or {})
    return refused
