"""Errors as clients see them: OpenAI's error object, and nothing about the inside of the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from icae.errors import (
    ConfigError,
    ConflictError,
    IcaeError,
    IncompatibleMemoryError,
    InputError,
    RequestError,
    StoreError,
)
from icae.serve.tracing import request_id

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class ErrorDetail(BaseModel):
    """What is wrong; where it is the answer to a request, with the id of that."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str | None = None


class ErrorBody(BaseModel):
    """A refusal; with 429, 409 and 503 the header Retry-After where trying again helps."""

    error: ErrorDetail


def refusal(error: Exception) -> RequestError:
    """What a client is told about any error."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, RequestValidationError):
        return _wrong_field(error.errors()[0])
    if isinstance(error, HTTPException):
        what = "There is nothing at this address." if error.status_code == 404 else error.detail
        return RequestError(what, status=error.status_code, code=f"http_{error.status_code}")
    if isinstance(error, ConflictError):
        return RequestError(
            "The memory was changed in the meantime.",
            status=409,
            code="memory_changed",
            fix="Send the request again.",
        )
    if isinstance(error, IncompatibleMemoryError | InputError | ConfigError):
        own = isinstance(error, IncompatibleMemoryError)
        return RequestError(
            error.message,
            status=409 if own else 400,
            code="incompatible_memory" if own else "invalid_request",
            got=error.got,
            expected=error.expected,
            fix=error.fix,
        )
    if isinstance(error, StoreError):
        return RequestError(
            "The memories cannot be reached now.",
            status=503,
            code="store_unavailable",
            retry_after_s=5,
        )
    if isinstance(error, IcaeError):
        return RequestError(
            "The server cannot do that now.", status=503, code="unavailable", retry_after_s=5
        )
    return RequestError("The server made a mistake.", status=500, code="internal_error")


def error_body(error: Exception) -> ErrorBody:
    """An error of the request under way, as OpenAI clients read it."""
    detail = error_detail(error)
    detail.request_id = request_id()
    return ErrorBody(error=detail)


def error_detail(error: Exception) -> ErrorDetail:
    """An error of whatever request."""
    told = refusal(error)
    notes = (("got", told.got), ("expected", told.expected), ("fix", told.fix))
    details = "; ".join(f"{label}: {text}" for label, text in notes if text is not None)
    kind = "invalid_request_error" if told.status < 500 else "server_error"
    return ErrorDetail(
        message=f"{told.message} ({details})" if details else told.message,
        type=_TYPES.get(told.status, kind),
        param=told.param,
        code=told.code,
    )


def error_response(error: Exception) -> JSONResponse:
    """An error as a response."""
    told = refusal(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if told.retry_after_s is not None:
        headers["Retry-After"] = str(told.retry_after_s)
    if told.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(told).model_dump(), status_code=told.status, headers=headers)


def _wrong_field(found: Mapping[str, object]) -> RequestError:
    """What pydantic says about the first field that is wrong."""
    where = found["loc"]
    assert isinstance(where, tuple)
    param = _param(where[1:])
    got = None if found["type"] == "missing" else repr(found["input"])[:80]
    if where == ("body", "model"):
        return RequestError(
            "There is no such model.", status=404, code="model_not_found", param=param, got=got
        )
    return RequestError(
        f"{param or 'The body'} cannot be used.",
        param=param,
        got=got,
        expected=str(found["msg"]).removeprefix("Input should be ")[:200],
    )


def _param(where: Sequence[str | int]) -> str | None:
    """A field by its place, such as ``messages[0].role``."""
    name = ""
    for at, step in enumerate(where):
        if isinstance(step, int):
            name += f"[{step}]"
        elif at == 0 or not isinstance(where[at - 1], int) or step not in ("text", "memory"):
            name += f".{step}"  # the kind of a content part is no field
    return name.removeprefix(".") or None
