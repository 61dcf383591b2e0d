"""Reading requests: bodies of bounded size in bounded time, as JSON or as an upload."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from icae.data.documents import document_of_bytes
from icae.errors import InputError, RequestError
from icae.server.chat_request import mapping
from icae.server.limits import Limits
from icae.spans import check_ratio
from icae.store.prepared import check_name

MAX_TITLE_CHARS = 200
"""Longest title of a memory."""

MAX_RATIO = 1000.0
"""Highest ratio that can be asked for."""


@dataclass(frozen=True, kw_only=True)
class NewDocument:
    """A text that is to become a memory.

    Attributes:
        text: The text.
        title: What the owner calls it.
        ratio: Context tokens per slot, or None for the server's.
    """

    text: str
    title: str
    ratio: float | None


async def read_body(request: Request, limits: Limits) -> bytes:
    """All of a body.

    Raises:
        RequestError: If it is too large (413) or too slow (408).
    """
    too_large = RequestError(
        "The body of the request is too large.",
        status=413,
        code="body_too_large",
        expected=f"at most {limits.body_bytes:,} bytes",
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > limits.body_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.body_bytes:
                    raise too_large
    except TimeoutError as error:
        raise RequestError(
            "The body of the request came too slowly.",
            status=408,
            code="timeout",
            expected=f"at most {limits.body_seconds:g} s",
        ) from error
    return bytes(body)


async def read_json(request: Request, limits: Limits) -> Any:
    """A JSON body.

    Raises:
        RequestError: As for `read_body`; if it is of another type (415) or no JSON (400).
    """
    if _media_type(request) != "application/json":
        raise _wrong_type(request, "application/json")
    return parse_json(await read_body(request, limits))


def parse_json(body: bytes) -> Any:
    """Parse JSON whose texts are valid Unicode.

    Raises:
        RequestError: If it is not.
    """
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise RequestError(
            "The body of the request is not valid JSON.", code="invalid_json", got=reason
        ) from error
    return value


async def read_document(request: Request, limits: Limits) -> NewDocument:
    """A text that is to become a memory: ``{"text", "name"?, "ratio"?}`` or an upload.

    An upload is ``multipart/form-data`` with the part ``file`` (text, Markdown, HTML or
    PDF, told by its content) and the optional fields ``name`` and ``ratio``.

    Raises:
        RequestError: If it cannot be used.
        InputError: If the document or the name cannot be used.
        ConfigError: If the ratio is out of range.
    """
    if _media_type(request) == "multipart/form-data":
        return await _uploaded(request, await read_body(request, limits), limits)
    if _media_type(request) != "application/json":
        raise _wrong_type(request, "application/json or multipart/form-data")
    raw = mapping(parse_json(await read_body(request, limits)), "the body")
    return NewDocument(
        text=text_field(raw.get("text"), "text"),
        title=_title(raw.get("name", "text")),
        ratio=_ratio(raw.get("ratio")),
    )


def text_field(value: Any, name: str) -> str:
    """Return a field that is text and not blank.

    Raises:
        RequestError: If it is not.
    """
    if not isinstance(value, str) or not value.strip():
        got = "blank text" if isinstance(value, str) else type(value).__name__
        raise RequestError(f"{name} is missing.", param=name, got=got, expected="text")
    return value


async def _uploaded(request: Request, body: bytes, limits: Limits) -> NewDocument:
    async def pieces() -> Any:
        yield body

    try:
        parser = MultiPartParser(
            request.headers, pieces(), max_files=1, max_fields=8, max_part_size=limits.body_bytes
        )
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, LookupError) as error:
        raise RequestError(
            "The upload cannot be read.", code="invalid_upload", got=str(error)[:200]
        ) from error
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RequestError(
                "The upload has no file.", param="file", expected="a part with the name file"
            )
        data = await file.read()
        title = _title(form.get("name") or file.filename or "upload")
        ratio = _ratio_text(form.get("ratio"))
    finally:
        await form.close()
    read = await asyncio.to_thread(
        document_of_bytes, data, name="the upload", max_bytes=limits.body_bytes
    )
    return NewDocument(text=read.text, title=title, ratio=ratio)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _wrong_type(request: Request, expected: str) -> RequestError:
    return RequestError(
        "The body of the request is of another type.",
        status=415,
        code="unsupported_media_type",
        got=request.headers.get("content-type", "no Content-Type")[:80],
        expected=expected,
    )


def _title(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TITLE_CHARS:
        raise RequestError(
            "name is out of range.", param="name", expected=f"1..{MAX_TITLE_CHARS} characters"
        )
    check_name(value)
    return value


def _ratio_text(value: Any) -> float | None:
    if value is None:
        return None
    try:
        return _ratio(float(str(value)))
    except ValueError as error:
        raise InputError("ratio is no number.", got=repr(value)[:80]) from error


def _ratio(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or value > MAX_RATIO:
        raise RequestError(
            "ratio is out of range.",
            param="ratio",
            got=repr(value)[:80],
            expected=f"a number from 1 to {MAX_RATIO:g}",
        )
    return check_ratio(float(value))
