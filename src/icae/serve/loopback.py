"""Keeps web pages away from a server without keys.

A page of any site can let a browser send requests to this machine, and a name that it
points there makes the browser show it the responses. Browsers name the site in ``Origin``
and the name in ``Host``; neither is of this machine then.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from icae.errors import RequestError
from icae.serve.refusals import error_response


def is_loopback(host: str) -> bool:
    """Whether a host name or an IP address is this machine, seen from itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class LoopbackOnly:
    """Refuses requests for, or from pages of, another host than this machine."""

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


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
