"""Reading requests: whose they are first, then bodies of bounded size in bounded time."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from icae.errors import RequestError
from icae.serve.config import ServerConfig
from icae.serve.memory_models import MemoryRequest, Upload
from icae.serve.refusals import ErrorBody
from icae.serve.service import Service
from icae.serve.tracing import client_gone

JSON = "application/json"
UPLOAD = "multipart/form-data"

POSTED_DOCUMENT = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": MemoryRequest.model_json_schema()},
            UPLOAD: {"schema": Upload.model_json_schema()},
        },
    }
}
"""What `posted_document` reads, for the OpenAPI document."""


class KeyedRoute(APIRoute):
    """A route that asks for the key before it reads, and reads within the limits."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; one with a body as one of those that its owner may have at a time."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)  # which refuses it
            return
        request = Request(scope, receive)
        service = service_of(request)
        owner = request.state.owner = service.keys.owner(request.headers.get("authorization"))
        accepted = self._accepted()
        if not accepted:
            await super().handle(scope, receive, send)
            return
        with service.arriving.held(owner):
            media_type = _media_type(request)
            if media_type not in accepted:
                raise RequestError(
                    "The body of the request is of another type.",
                    status=415,
                    code="unsupported_media_type",
                    got=request.headers.get("content-type", "no Content-Type")[:80],
                    expected=" or ".join(accepted),
                )
            body = await _read_body(request, service.config)
            if media_type == JSON:
                _require_json(body)
            gone = asyncio.create_task(_note_gone(receive))
            try:
                await super().handle(scope, _replayed(body, receive), send)
            finally:
                gone.cancel()

    def _accepted(self) -> tuple[str, ...]:
        """Media types of the body, as the OpenAPI document names them."""
        if self.body_field is not None:
            return (str(getattr(self.body_field.field_info, "media_type", JSON)),)
        body = (self.openapi_extra or {}).get("requestBody", {})
        return tuple(body.get("content", ()))


def keyed_router() -> APIRouter:
    """Routes that need a key where the server has keys."""
    key = HTTPBearer(
        scheme_name="key", description="Only of a server with --keys.", auto_error=False
    )
    return APIRouter(
        route_class=KeyedRoute,
        dependencies=[Depends(key)],
        responses={status: {"model": ErrorBody} for status in ("4XX", "503")},
    )


def service_of(request: Request) -> Service:
    """What the application serves with."""
    service: Service = request.app.state.service
    return service


def _owner_of(request: Request) -> str:
    owner: str = request.state.owner
    return owner


Serving = Annotated[Service, Depends(service_of)]
Owner = Annotated[str, Depends(_owner_of)]


async def _read_body(request: Request, config: ServerConfig) -> bytes:
    """All of a body; a RequestError if it is too large (413) or too slow (408)."""
    too_large = RequestError(
        "The body of the request is too large.",
        status=413,
        code="body_too_large",
        expected=f"at most {config.body_bytes:,} bytes",
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > config.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(config.body_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > config.body_bytes:
                    raise too_large
    except TimeoutError as error:
        raise _too_slow("The body of the request came too slowly.", config.body_seconds) from error
    return bytes(body)


async def _note_gone(receive: Receive) -> None:
    """Wait until the client goes away, and tell so to what waits for the model."""
    while (await receive())["type"] != "http.disconnect":
        pass
    client_gone().set()


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What receives a body that was read already, then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _require_json(body: bytes) -> None:
    """Refuse what is not JSON whose texts are valid Unicode."""
    try:
        json.dumps(json.loads(body), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise RequestError(
            "The body of the request is not valid JSON.", code="invalid_json", got=reason
        ) from error


async def posted_document(request: Request, service: Serving) -> MemoryRequest:
    """A document that is to become a memory, as JSON or as a file that is uploaded.

    Raises:
        RequestError: If it cannot be read, or took too long.
        RequestValidationError: If a field is wrong.
        InputError: If the file is no document.
    """
    try:
        if _media_type(request) == JSON:
            return MemoryRequest.model_validate(await request.json())
        return MemoryRequest.model_validate_strings(await _uploaded(request, service))
    except ValidationError as error:
        wrong = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(wrong) from error


async def _uploaded(request: Request, service: Service) -> dict[str, object]:
    """The fields of an upload, and the text of its file."""
    config, most = service.config, service.config.body_bytes
    try:
        async with request.form(max_files=1, max_fields=8, max_part_size=most) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise RequestError(
                    "The upload has no file.", param="file", expected="a part with the name file"
                )
            data = await file.read()
            fields = {name: form[name] for name in ("ratio", "min_fidelity") if name in form}
            title = form.get("name") or file.filename or "upload"
    except (HTTPException, ValueError, LookupError) as error:
        told = error.detail if isinstance(error, HTTPException) else str(error)
        raise RequestError(
            "The upload cannot be read.", code="invalid_upload", got=told[:200]
        ) from error
    parsers, seconds = service.parsers, config.parse_seconds
    read = functools.partial(parsers.text, data, max_bytes=most, seconds=seconds)
    try:
        async with asyncio.timeout(config.body_seconds):
            text = await asyncio.get_running_loop().run_in_executor(parsers.pool, read)
    except TimeoutError as error:
        fix = "Send its text."
        what = "The upload takes too long to be read."
        raise _too_slow(what, config.parse_seconds, fix=fix) from error
    return {**fields, "text": text, "name": title}


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _too_slow(what: str, seconds: float, *, fix: str | None = None) -> RequestError:
    most = f"at most {seconds:g} s"
    return RequestError(what, status=408, code="timeout", expected=most, fix=fix)
