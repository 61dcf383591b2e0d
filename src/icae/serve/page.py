"""The playground: one page and its files, sent with headers that let it load nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import resources

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from icae.errors import RequestError

_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)

_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[BaseRoute]:
    """Where the page is: at ``/playground/``, and ``/`` leads there.

    They are no part of the API and need no key: the page asks for one.
    """
    files = _files()

    async def root(request: Request) -> Response:
        return RedirectResponse("playground/", status_code=307)

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise RequestError("There is nothing at this address.", status=404, code="http_404")
        body = files[name]
        headers = {**_HEADERS, "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
        return Response(body, media_type=media_type, headers=headers)

    return [
        Route("/", root, methods=["GET"], include_in_schema=False),
        Mount(
            "/playground",
            routes=[
                Route("/", page, methods=["GET"]),
                Route("/{name}", page, methods=["GET"]),
            ],
        ),
    ]


def _files() -> Mapping[str, bytes]:
    """The files of the page by their names."""
    folder = resources.files("icae.serve").joinpath("playground")
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name.rpartition(".")[2] in _MEDIA_TYPES
    }
