"""What stands around the endpoints: counts, mistakes told as errors, other sites refused."""

from __future__ import annotations

import ipaddress
import logging
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from icae.errors import RequestError
from icae.serve.metrics import Metrics
from icae.serve.refusals import error_response
from icae.serve.tracing import REQUEST_ID, begin_request, write_access_line

log = logging.getLogger(__name__)


class Watched:
    """Counts responses, and makes up for mistakes of the server with an error that tells nothing.

    Every response has the id of its request; with `access_log` a line is written about it.
    A HEAD is answered as a GET, without the body.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, access_log: bool = False) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, name, asked = time.perf_counter(), 0, begin_request(scope), scope
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = name
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if status:
                raise
            log.exception("Request %s failed.", name)
            await error_response(error)(scope, receive, noting)
        finally:
            endpoint = getattr(scope.get("endpoint"), "__name__", "none")
            self._metrics.requests.labels(endpoint=endpoint, status=str(status or 500)).inc()
            seconds = time.perf_counter() - begin
            self._metrics.seconds.labels(endpoint=endpoint).observe(seconds)
            if self._access_log:
                told = {**scope, "method": asked["method"]}
                write_access_line(told, status=status or 500, seconds=seconds, name=name)


class LoopbackOnly:
    """Refuses requests for, or from pages of, another host than this machine.

    A page of any site can let a browser send requests to this machine, and a name that it
    points there makes the browser show it the responses. Browsers name the site in ``Origin``
    and the name in ``Host``; neither is of this machine then.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            named = [f"//{headers.get('host', '')}", *headers.getlist("origin")]
            if not all(is_loopback(_host(url)) for url in named):
                refused = RequestError(
                    "Without API keys the server is for this machine alone.",
                    status=403,
                    code="not_local",
                    fix="Start it with --keys.",
                )
                await error_response(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a host name or an IP address is this machine, seen from itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
