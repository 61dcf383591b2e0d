"""``/v1/memories``: memories as objects."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import Body, Depends, Header, Path, Query, Response

from icae.compression import living
from icae.compression.compressor import Compressor
from icae.compression.living import Change
from icae.decode.reader import places_in
from icae.errors import MemoryFileError, RequestError
from icae.memory import Memory, memory_bytes, memory_from_bytes
from icae.serve.jobs import Job
from icae.serve.library import in_work
from icae.serve.memory_models import (
    DeletedMemory,
    MemoryId,
    MemoryObject,
    MemoryPage,
    MemoryRequest,
    MemoryText,
    MoreText,
    TextEdit,
    Title,
)
from icae.serve.requests import POSTED_DOCUMENT, Owner, Serving, keyed_router, posted_document
from icae.serve.service import Service, settled

FILE = "application/octet-stream"
"""Media type of a memory file."""

router = keyed_router()

Id = Annotated[MemoryId, Path(alias="id")]
Prefer = Annotated[
    list[str] | None,
    Header(description="With respond-async (RFC 7240) the response is 202 at once."),
]
IfMatch = Annotated[
    str | None,
    Header(
        description="ETags of the memory, or *: it is changed only if it has one of them, else "
        "the response is 412."
    ),
]
IN_WORK: dict[int | str, dict[str, Any]] = {
    202: {
        "model": MemoryObject,
        "description": "It is in work; ask for it by its id. It is on the disk when it is ready.",
    }
}


@router.post(
    "/v1/memories",
    status_code=201,
    response_model_exclude_unset=True,
    responses=IN_WORK,
    openapi_extra=POSTED_DOCUMENT,
)
async def create_memory(
    document: Annotated[MemoryRequest, Depends(posted_document)],
    service: Serving,
    owner: Owner,
    response: Response,
    prefer: Prefer = None,
) -> MemoryObject:
    """Make a memory of a text or a file."""
    make = functools.partial(service.library.create, ratio=service.config.ratio)
    job = await asyncio.to_thread(make, owner, document)
    return await _outcome(service, job, response, prefer)


@router.get("/v1/memories", response_model_exclude_unset=True)
def list_memories(
    service: Serving,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=100, description="Most memories in the response.")] = 20,
    after: Annotated[
        MemoryId | None,
        Query(description="The memory after which the page begins, `last_id` of the page before."),
    ] = None,
) -> MemoryPage:
    """The memories of the key, those changed last first; work under way before them."""
    return service.library.page(owner, limit=limit, after=after)


@router.post("/v1/memories/import", status_code=201, response_model_exclude_unset=True)
def import_memory(
    service: Serving,
    owner: Owner,
    response: Response,
    name: Annotated[Title, Query()] = "memory",
    data: Annotated[bytes, Body(media_type=FILE)] = b"",
) -> MemoryObject:
    """Keep a memory file that the same adapter made; it is read strictly, as data alone."""
    try:
        memory = memory_from_bytes(
            data, where="The upload", max_source_bytes=service.config.body_bytes
        )
    except MemoryFileError as error:
        raise RequestError(
            error.message, code="invalid_memory_file", got=error.got, expected=error.expected
        ) from error
    return _tagged(service.library.take_in(owner, memory, title=name), response)


@router.get("/v1/memories/{id}", response_model_exclude_unset=True)
def get_memory(memory_id: Id, service: Serving, owner: Owner, response: Response) -> MemoryObject:
    """A memory, or how far the work on it is."""
    return _tagged(service.library.get(owner, memory_id), response)


@router.delete("/v1/memories/{id}")
def delete_memory(
    memory_id: Id, service: Serving, owner: Owner, if_match: IfMatch = None
) -> DeletedMemory:
    """Forget a memory; work on it is given up."""
    service.library.drop(owner, memory_id, versions=_versions(if_match))
    return DeletedMemory(id=memory_id)


@router.post("/v1/memories/{id}/append", response_model_exclude_unset=True, responses=IN_WORK)
async def append_memory(
    memory_id: Id,
    more: MoreText,
    service: Serving,
    owner: Owner,
    response: Response,
    prefer: Prefer = None,
    if_match: IfMatch = None,
) -> MemoryObject:
    """Add text to the end of a memory; until it is ready the old one is read."""
    _require_short(service, more.text, "appended", "Append")

    def change(compressor: Compressor, memory: Memory) -> Change:
        end = memory.documents[-1].chars
        return living.change(compressor, memory, -1, slice(end, end), more.text, None)

    versions = _versions(if_match)
    return await _changed(service, owner, memory_id, change, versions, response, prefer)


@router.post("/v1/memories/{id}/edit", response_model_exclude_unset=True, responses=IN_WORK)
async def edit_memory(
    memory_id: Id,
    wanted: TextEdit,
    service: Serving,
    owner: Owner,
    response: Response,
    prefer: Prefer = None,
    if_match: IfMatch = None,
) -> MemoryObject:
    """Put other text in place of some; only spans that it touches are compressed again."""
    _require_short(service, wanted.text, "put in", "Edit")
    # What the characters count is the memory as it is now, or as the client has seen it.
    versions = _versions(if_match)
    if versions is None:
        versions = [(await asyncio.to_thread(service.library.get, owner, memory_id)).version]

    def change(compressor: Compressor, memory: Memory) -> Change:
        chars = slice(wanted.start, wanted.end)
        return living.change(compressor, memory, wanted.document, chars, wanted.text, None)

    return await _changed(service, owner, memory_id, change, versions, response, prefer)


@router.get("/v1/memories/{id}/spans")
def memory_spans(memory_id: Id, service: Serving, owner: Owner) -> MemoryText:
    """The text of a memory with how faithfully each part of it is held."""
    memory = service.library.load(owner, memory_id)
    own = service.library.tokenizing.compressor
    begin = own.config.asking.begin
    places = [places_in(document, own.tokenizer, begin) for document in memory.documents]
    return MemoryText.of(memory, places)


@router.get(
    "/v1/memories/{id}/file",
    response_class=Response,
    responses={200: {"content": {FILE: {"schema": {"type": "string", "contentMediaType": FILE}}}}},
)
def memory_file(memory_id: Id, service: Serving, owner: Owner) -> Response:
    """A memory as an ``.icae`` file."""
    data = memory_bytes(service.library.load(owner, memory_id))
    headers = {"Content-Disposition": f'attachment; filename="{memory_id}.icae"'}
    return Response(data, media_type=FILE, headers=headers)


def _require_short(service: Service, text: str, done: str, do: str) -> None:
    most = service.config.append_chars
    if len(text) > most:
        raise RequestError(
            f"The text is too long to be {done} at once.",
            status=413,
            code="body_too_large",
            param="text",
            got=f"{len(text):,} characters",
            expected=f"at most {most:,}",
            fix=f"{do} it in parts.",
        )


async def _changed(
    service: Service,
    owner: str,
    memory_id: str,
    change: Callable[[Compressor, Memory], Change],
    versions: Sequence[str] | None,
    response: Response,
    prefer: Sequence[str] | None,
) -> MemoryObject:
    begin = functools.partial(service.library.change, versions=versions)
    job = await asyncio.to_thread(begin, owner, memory_id, change)
    return await _outcome(service, job, response, prefer)


async def _outcome(
    service: Service, job: Job, response: Response, prefer: Sequence[str] | None
) -> MemoryObject:
    """The memory if it is ready soon, else how far the work is (202)."""
    wishes = [wish.strip() for wish in ",".join(prefer or ()).lower().split(",")]
    if "respond-async" in wishes:
        response.headers["Preference-Applied"] = "respond-async"
    elif await settled(job.future, seconds=service.config.wait_seconds):
        return _tagged(job.future.result(), response)
    response.status_code = 202
    return in_work(job)


def _tagged(memory: MemoryObject, response: Response) -> MemoryObject:
    """A memory whose version goes into the header, too."""
    if memory.version:
        response.headers["ETag"] = f'"{memory.version}"'
    return memory


def _versions(if_match: str | None) -> list[str] | None:
    """The versions that an If-Match (RFC 9110) names, weak ones left out; None: any will do."""
    if if_match is None or if_match.strip() == "*":
        return None
    return re.findall(r'(?<!W/)"([^"]*)"', if_match)
