"""Reading requests: bodies of bounded size in bounded time, as JSON or as an upload."""

from __future__ import annotations

import asyncio
import functools
import json
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from icae.data.documents import document_of_bytes
from icae.errors import RequestError
from icae.serve.chat_request import mapping
from icae.serve.limits import Limits
from icae.store.prepared import check_name

MAX_TITLE_CHARS = 200
"""Longest title of a memory."""

MEMORY_FILE_TYPE = "application/octet-stream"
"""Media type of a memory file."""

RATIOS = (1.0, 1000.0)
"""Lowest and highest ratio that can be asked for."""

FIDELITIES = (0.01, 1.0)
"""Lowest and highest fidelity that can be asked for."""


@dataclass(frozen=True, kw_only=True)
class NewDocument:
    """A text that is to become a memory.

    Attributes:
        text: The text.
        title: What the owner calls it.
        ratio: Context tokens per slot, or None for the server's.
        min_fidelity: Share of the tokens (0..1) that every span must hold, at the highest
            ratio that does, or as it is; None for one ratio.
    """

    text: str
    title: str
    ratio: float | None
    min_fidelity: float | None

    def __post_init__(self) -> None:
        if self.ratio is not None and self.min_fidelity is not None:
            raise RequestError(
                "ratio and min_fidelity do not go together.",
                param="ratio",
                fix="Leave one out: with min_fidelity each span gets a ratio of its own.",
            )


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


async def read_bytes(request: Request, limits: Limits) -> bytes:
    """The body of an uploaded memory file.

    Raises:
        RequestError: As for `read_body`; if it is of another type (415).
    """
    if _media_type(request) != MEMORY_FILE_TYPE:
        raise _wrong_type(request, MEMORY_FILE_TYPE)
    return await read_body(request, limits)


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


async def read_document(request: Request, limits: Limits, parsers: Executor) -> NewDocument:
    """A text that is to become a memory: JSON, or an upload.

    JSON has the fields ``text``, ``name``, ``ratio`` and ``min_fidelity``, all but the
    first optional.

    An upload is ``multipart/form-data`` with the part ``file`` (text, Markdown, HTML or
    PDF, told by its content) and the same optional fields.

    Args:
        request: The request.
        limits: Bounds of its body, and of the time to read a file.
        parsers: Threads that read files.

    Raises:
        RequestError: If it cannot be used, or took too long.
        InputError: If the document or the name cannot be used.
    """
    if _media_type(request) == "multipart/form-data":
        return await _uploaded(request, await read_body(request, limits), limits, parsers)
    if _media_type(request) != "application/json":
        raise _wrong_type(request, "application/json or multipart/form-data")
    raw = mapping(parse_json(await read_body(request, limits)), "the body")
    return NewDocument(
        text=text_field(raw.get("text"), "text"),
        title=title_of(raw.get("name", "text")),
        ratio=_number(raw.get("ratio"), "ratio", RATIOS),
        min_fidelity=_number(raw.get("min_fidelity"), "min_fidelity", FIDELITIES),
    )


def prefers_no_wait(request: Request) -> bool:
    """Whether the client would rather look later than wait (RFC 7240)."""
    wishes = ",".join(request.headers.getlist("prefer")).lower()
    return "respond-async" in (wish.strip() for wish in wishes.split(","))


def text_field(value: Any, name: str) -> str:
    """Return a field that is text and not blank.

    Raises:
        RequestError: If it is not.
    """
    if not isinstance(value, str) or not value.strip():
        got = "blank text" if isinstance(value, str) else type(value).__name__
        raise RequestError(f"{name} is missing.", param=name, got=got, expected="text")
    return value


async def _uploaded(
    request: Request, body: bytes, limits: Limits, parsers: Executor
) -> NewDocument:
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
        title = title_of(form.get("name") or file.filename or "upload")
        ratio = _number_text(form.get("ratio"), "ratio", RATIOS)
        fidelity = _number_text(form.get("min_fidelity"), "min_fidelity", FIDELITIES)
    finally:
        await form.close()
    parse = functools.partial(
        document_of_bytes, data, name="the upload", max_bytes=limits.body_bytes
    )
    try:
        async with asyncio.timeout(limits.body_seconds):
            read = await asyncio.get_running_loop().run_in_executor(parsers, parse)
    except TimeoutError as error:
        raise RequestError(
            "The upload takes too long to be read.",
            status=408,
            code="timeout",
            expected=f"at most {limits.body_seconds:g} s",
            fix="Send its text.",
        ) from error
    return NewDocument(text=read.text, title=title, ratio=ratio, min_fidelity=fidelity)


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


def title_of(value: Any) -> str:
    """Return what can be the name of a memory.

    Raises:
        RequestError: If it is no text or too long.
        InputError: If it is blank or has control characters.
    """
    if not isinstance(value, str) or len(value) > MAX_TITLE_CHARS:
        raise RequestError(
            "name is out of range.", param="name", expected=f"1..{MAX_TITLE_CHARS} characters"
        )
    check_name(value)
    return value


def _number_text(value: Any, name: str, bounds: tuple[float, float]) -> float | None:
    """A number in a field of a form; see `_number`."""
    try:
        return None if value is None else _number(float(str(value)), name, bounds)
    except ValueError as error:
        raise _out_of_range(name, value, bounds) from error


def _number(value: Any, name: str, bounds: tuple[float, float]) -> float | None:
    """A number within bounds, or None where there is none."""
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not bounds[0] <= value <= bounds[1]:
        raise _out_of_range(name, value, bounds)
    return float(value)


def _out_of_range(name: str, value: Any, bounds: tuple[float, float]) -> RequestError:
    return RequestError(
        f"{name} is out of range.",
        param=name,
        got=repr(value)[:80],
        expected=f"a number from {bounds[0]:g} to {bounds[1]:g}",
    )
