"""``/v1/memories``: memories as objects."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from icae.errors import MemoryFileError, RequestError
from icae.memory import memory_bytes, memory_from_bytes
from icae.serve.bodies import Body, ready_memory_body, work_body
from icae.serve.chat_request import mapping
from icae.serve.document_work import DocumentWork
from icae.serve.incoming import (
    MEMORY_FILE_TYPE,
    prefers_no_wait,
    read_bytes,
    read_document,
    read_json,
    text_field,
    title_of,
)
from icae.serve.service import Service
from icae.serve.shelf import check_memory_id, no_memory
from icae.serve.span_bodies import spans_body
from icae.serve.waiting import settled

MAX_PAGE = 100
"""Most memories in one response."""


@dataclass(frozen=True, kw_only=True)
class MemoryEndpoints:
    """Makes, lists, changes and deletes memories.

    Attributes:
        service: What it is done with.
    """

    service: Service

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/v1/memories", self.create_memory, methods=["POST"]),
            Route("/v1/memories", self.list_memories, methods=["GET"]),
            Route("/v1/memories/import", self.import_memory, methods=["POST"]),
            Route("/v1/memories/{id}", self.get_memory, methods=["GET"]),
            Route("/v1/memories/{id}", self.delete_memory, methods=["DELETE"]),
            Route("/v1/memories/{id}/append", self.append_memory, methods=["POST"]),
            Route("/v1/memories/{id}/spans", self.memory_spans, methods=["GET"]),
            Route("/v1/memories/{id}/file", self.memory_file, methods=["GET"]),
        ]

    async def create_memory(self, request: Request) -> Response:
        """Make a memory of a text or a file."""
        owner = self.service.owner(request)
        with self.service.arriving.held(owner):
            document = await read_document(request, self.service.limits, self.service.parsers)
            work = self.service.desk.create(owner, document, ratio=self.service.ratio)
            return await self._outcome(request, work, ready_status=201)

    async def list_memories(self, request: Request) -> Response:
        """A page of the memories, those changed last first; work under way before them."""
        owner = self.service.owner(request)
        limit, after = _page(request)
        shelved = await asyncio.to_thread(self.service.shelf.list, owner)
        known = {one.id for one in shelved}
        works = [w for w in self.service.desk.works_of(owner) if w.id not in known]
        bodies = [*map(work_body, works), *map(ready_memory_body, shelved)]
        ids = [body["id"] for body in bodies]
        if after is not None and after not in ids:
            raise no_memory(after)
        start = 0 if after is None else ids.index(after) + 1
        page = bodies[start : start + limit]
        return JSONResponse(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": start + limit < len(bodies),
            }
        )

    async def get_memory(self, request: Request) -> Response:
        """What is known about a memory, or how far the work on it is."""
        owner = self.service.owner(request)
        return JSONResponse(await self._body(owner, check_memory_id(request.path_params["id"])))

    async def delete_memory(self, request: Request) -> Response:
        """Forget a memory; work on it is given up."""
        owner = self.service.owner(request)
        memory_id = check_memory_id(request.path_params["id"])
        await asyncio.to_thread(self.service.desk.drop, owner, memory_id)
        return JSONResponse({"id": memory_id, "object": "memory.deleted", "deleted": True})

    async def append_memory(self, request: Request) -> Response:
        """Add text to the end of a memory."""
        owner = self.service.owner(request)
        memory_id = check_memory_id(request.path_params["id"])
        limits = self.service.limits
        with self.service.arriving.held(owner):
            raw = mapping(await read_json(request, limits), "the body")
            text = text_field(raw.get("text"), "text")
            if len(text) > limits.append_chars:
                raise RequestError(
                    "The text is too long to be appended at once.",
                    status=413,
                    code="body_too_large",
                    param="text",
                    got=f"{len(text):,} characters",
                    expected=f"at most {limits.append_chars:,}",
                    fix="Append it in parts.",
                )
            work = await asyncio.to_thread(self.service.desk.append, owner, memory_id, text)
            return await self._outcome(request, work, ready_status=200)

    async def import_memory(self, request: Request) -> Response:
        """Keep a memory file that was made elsewhere; it is read strictly, as data alone."""
        owner = self.service.owner(request)
        with self.service.arriving.held(owner):
            title = title_of(request.query_params.get("name", "memory"))
            data = await read_bytes(request, self.service.limits)
            return await asyncio.to_thread(self._take_in, owner, data, title)

    def _take_in(self, owner: str, data: bytes, title: str) -> Response:
        try:
            memory = memory_from_bytes(
                data, where="The upload", max_source_bytes=self.service.limits.body_bytes
            )
        except MemoryFileError as error:
            raise RequestError(
                error.message,
                code="invalid_memory_file",
                got=error.got,
                expected=error.expected,
            ) from error
        memory_id = self.service.desk.take_in(owner, memory, title=title)
        return JSONResponse(
            ready_memory_body(self.service.shelf.get(owner, memory_id)), status_code=201
        )

    async def memory_file(self, request: Request) -> Response:
        """A memory as an ``.icae`` file."""
        owner = self.service.owner(request)
        memory_id = check_memory_id(request.path_params["id"])
        memory = await asyncio.to_thread(self.service.shelf.load, owner, memory_id)
        headers = {"Content-Disposition": f'attachment; filename="{memory_id}.icae"'}
        data = await asyncio.to_thread(memory_bytes, memory)
        return Response(data, media_type=MEMORY_FILE_TYPE, headers=headers)

    async def memory_spans(self, request: Request) -> Response:
        """What each span of a memory stands for, and how faithfully it is held."""
        owner = self.service.owner(request)
        memory_id = check_memory_id(request.path_params["id"])
        memory = await asyncio.to_thread(self.service.shelf.load, owner, memory_id)
        return JSONResponse(await asyncio.to_thread(spans_body, memory, self.service.token_starts))

    async def _outcome(
        self, request: Request, work: DocumentWork, *, ready_status: int
    ) -> Response:
        """The memory if it is ready soon, else how far the work is (202)."""
        if prefers_no_wait(request):
            return JSONResponse(
                work_body(work),
                status_code=202,
                headers={"Preference-Applied": "respond-async"},
            )
        if await settled(work.future, seconds=self.service.limits.wait_seconds):
            work.future.result()
            shelved = await asyncio.to_thread(self.service.shelf.get, work.owner, work.id)
            return JSONResponse(ready_memory_body(shelved), status_code=ready_status)
        return JSONResponse(work_body(work), status_code=202)

    async def _body(self, owner: str, memory_id: str) -> Body:
        work = self.service.desk.work_on(owner, memory_id)
        try:
            ready = ready_memory_body(
                await asyncio.to_thread(self.service.shelf.get, owner, memory_id)
            )
        except RequestError as error:
            if error.status != 404 or work is None:
                raise
            return work_body(work)
        if work is None:
            return ready
        if work.appends:
            return {**ready, **work_body(work)}
        # A memory that was just made is on the shelf a moment before the work on it has ended.
        await settled(work.future, seconds=self.service.limits.wait_seconds)
        return ready


def _page(request: Request) -> tuple[int, str | None]:
    """How many memories are wanted, and after which."""
    text = request.query_params.get("limit", "20")
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MAX_PAGE:
        raise RequestError(
            "limit is out of range.", param="limit", got=text[:80], expected=f"1..{MAX_PAGE}"
        )
    after = request.query_params.get("after")
    return int(text), None if after is None else check_memory_id(after)
