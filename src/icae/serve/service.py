"""A loaded model, a store, and the thread between them: all that requests are served with."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse

from icae.config.spans import check_ratio
from icae.decode.vllm.runtime import VllmRuntime
from icae.engine import Icae
from icae.errors import RequestError
from icae.memory import Memory, hash_token_ids
from icae.serve.bodies import error_body
from icae.serve.chat_reading import ChatReader
from icae.serve.chat_writing import ChatWriter
from icae.serve.document_work import DocumentDesk
from icae.serve.engine_writing import EngineWriter
from icae.serve.keys import Keys
from icae.serve.limits import Limits
from icae.serve.metrics import Metrics
from icae.serve.owner_limit import OwnerLimit
from icae.serve.shelf import Shelf
from icae.serve.span_bodies import TokenStarts
from icae.serve.worker import ModelWorker, Writer
from icae.store import MemoryStore

PARSERS = 2
"""Uploaded files that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the endpoints share.

    Attributes:
        model: Name of the model that clients ask for: the adapter's.
        created: When the server started, Unix time, s.
        keys: Tells who sends a request.
        limits: Bounds.
        metrics: Counts.
        shelf: The memories.
        desk: Work on memories.
        worker: The thread that runs the model.
        arriving: Requests of each owner whose body is read or that wait for their answer.
        ratio: Context tokens per slot where a request does not say.
        parsers: Threads that read uploaded files: a slow one holds up other uploads alone.
        token_starts: Where the tokens of a document of a memory start in its text.
    """

    model: str
    created: int
    keys: Keys
    limits: Limits
    metrics: Metrics
    shelf: Shelf
    desk: DocumentDesk
    worker: ModelWorker
    arriving: OwnerLimit
    ratio: float
    parsers: Executor
    token_starts: TokenStarts

    @classmethod
    def over(
        cls,
        icae: Icae,
        store: MemoryStore,
        *,
        keys: Keys,
        limits: Limits,
        longest_message: int | None = None,
        ratio: float = 4.0,
        engine: VllmRuntime | None = None,
    ) -> Service:
        """Put a service together; its worker is not started.

        Args:
            icae: The model.
            store: Where memories are kept.
            keys: Tells who sends a request.
            limits: Bounds.
            longest_message: Most tokens of a message that is read as text, or None.
            ratio: Context tokens per slot where a request does not say.
            engine: Answers chats in place of the loaded model, which then only compresses.

        Raises:
            ConfigError: If the ratio is out of range.
        """
        check_ratio(ratio)
        metrics, shelf = Metrics(), Shelf(store)
        if engine is not None:
            icae = icae.answering_in(engine)
        reader = ChatReader(
            icae, limits=limits, metrics=metrics, longest_message=longest_message, ratio=ratio
        )
        writer: Writer = (
            ChatWriter(icae, reader, metrics=metrics, kept_bytes=limits.kept_bytes)
            if engine is None
            else EngineWriter(icae, engine, reader, metrics=metrics)
        )
        worker = ModelWorker(writer, limits=limits, metrics=metrics)
        return cls(
            model=icae.name,
            created=int(time.time()),
            keys=keys,
            limits=limits,
            metrics=metrics,
            shelf=shelf,
            desk=DocumentDesk(icae, shelf, submit=worker.submit_document, metrics=metrics),
            worker=worker,
            arriving=OwnerLimit(limits.per_owner),
            ratio=ratio,
            parsers=ThreadPoolExecutor(PARSERS, thread_name_prefix="icae-parser"),
            token_starts=functools.partial(_token_starts, icae),
        )

    def owner(self, request: Request) -> str:
        """Who sends a request.

        Raises:
            RequestError: If the sender may not use the server (401).
        """
        return self.keys.owner(request.headers.get("authorization"))


def error_response(error: RequestError) -> JSONResponse:
    """An error as a response."""
    headers: Mapping[str, str] = {}
    if error.retry_after_s is not None:
        headers = {"Retry-After": str(error.retry_after_s)}
    if error.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return JSONResponse(error_body(error), status_code=error.status, headers=headers)


def _token_starts(icae: Icae, memory: Memory, document: int) -> Sequence[int] | None:
    """Where the tokens start, if the text still has those that it was compressed from."""
    own = memory.documents[document]
    if own.source is None:
        return None
    tokens = icae.compressor.tokenize(own.source)
    return tokens.offsets if hash_token_ids(tokens.ids) == own.token_ids_sha256 else None
