"""The memories of each owner, in one store, and the work on them.

A memory is kept under the name ``owner/id``; an owner only ever names own ones. Owner and
title are part of its settings and so of its address, so memories of two owners never become
one, and nobody can tell from a fast reply that somebody else has the same text.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from weakref import WeakValueDictionary

from icae.engine import Engine
from icae.errors import MissingMemoryError, RequestError
from icae.memory import Memory, memory_bytes
from icae.serve.jobs import Job, Steps, compressing
from icae.serve.memory_models import (
    MemoryObject,
    MemoryPage,
    MemoryRequest,
    Progress,
    no_memory,
)
from icae.serve.metrics import Metrics
from icae.serve.refusals import error_body
from icae.store import MemoryStore, NewMemory, Settings, StoredMemory

KEPT_FAILURES = 256
"""Failed jobs that can be asked about; older ones are forgotten."""


class Library:
    """Memories by owner and id, kept in `store`; safe for several threads.

    `submit` lets a job wait for the model.
    """

    def __init__(
        self, icae: Engine, store: MemoryStore, *, submit: Callable[[Job], None], metrics: Metrics
    ) -> None:
        self._icae = icae
        self._store = store
        self._submit = submit
        self._metrics = metrics
        self._lock = threading.Lock()
        self._read: WeakValueDictionary[str, Memory] = WeakValueDictionary()
        self._jobs: dict[str, Job] = {}  # by name, under way or failed

    def create(self, owner: str, wanted: MemoryRequest, *, ratio: float) -> Job:
        """Begin to make a memory of a text, at `ratio` where that is not said.

        Raises:
            RequestError: If too many documents wait (429), or the server is closing (503).
        """

        def work(job: Job) -> Steps:
            memory = yield from compressing(self._icae, wanted, ratio=ratio)
            self._metrics.context_tokens.inc(memory.tokens)
            self._put(job, memory)

        return self._begin(Job(owner=owner, id=_new_id(), title=wanted.name, work=work))

    def append(self, owner: str, memory_id: str, text: str) -> Job:
        """Begin to add text to the end of a memory; until it is done the old one is read.

        Raises:
            RequestError: As for `create`; if the owner has no such memory (404), or it is
                being worked on already (409).
        """

        def work(job: Job) -> Steps:
            yield 0, 1
            record, _ = self._find(owner, memory_id)
            if record is None:
                raise no_memory(memory_id)
            with self._lock:
                memory = self._store.load(record.key)
            longer = self._icae.append(memory, text)
            self._put(job, longer, replaces=record.key)
            self._metrics.context_tokens.inc(longer.tokens - memory.tokens)

        record, job = self._find(owner, memory_id)
        if record is None:
            raise no_memory(memory_id) if job and job.future.done() else _in_progress()
        return self._begin(Job(owner=owner, id=memory_id, title=_title(record), work=work))

    def take_in(self, owner: str, memory: Memory, *, title: str) -> MemoryObject:
        """Keep a memory that was made elsewhere; it is on the disk when this returns.

        Raises:
            IncompatibleMemoryError: If another adapter or base model made it.
        """
        self._icae.require_own(memory)
        memory_id = _new_id()
        with self._lock:
            self._keep(owner, memory_id, title, memory)
        return self.get(owner, memory_id)

    def get(self, owner: str, memory_id: str) -> MemoryObject:
        """What is known about a memory.

        Raises:
            RequestError: If the owner has none of that id (404).
        """
        return _described(memory_id, *self._find(owner, memory_id))

    def page(self, owner: str, *, limit: int, after: str | None) -> MemoryPage:
        """Memories of an owner, those in work first, then those added last.

        Raises:
            RequestError: If the owner has none of the id `after` (404).
        """
        start = _name(owner, "")
        with self._lock:
            records = self._store.records(under=start)
            jobs = sorted(self._jobs.items(), key=lambda item: item[1].future.done())
        named = {name: one for one in records for name in one.names if name.startswith(start)}
        kept = sorted(named, key=lambda name: (named[name].added_at, name), reverse=True)
        found = [
            _described(job.id, None, job)
            for name, job in jobs
            if job.owner == owner and name not in named
        ] + [_described(name.removeprefix(start), named[name], None) for name in kept]
        ids = [one.id for one in found]
        if after is not None and after not in ids:
            raise no_memory(after)
        begin = 0 if after is None else ids.index(after) + 1
        page = found[begin : begin + limit]
        return MemoryPage(
            object="list",
            data=page,
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
            has_more=begin + limit < len(found),
        )

    def load(self, owner: str, memory_id: str) -> Memory:
        """A memory, read and checked; those who read it at the same time share it.

        Raises:
            RequestError: If the owner has none of that id that is ready (404).
        """
        with self._lock:
            try:
                key = self._store.get(_name(owner, memory_id)).key
                memory = self._read.get(key) or self._store.load(key)
            except MissingMemoryError as error:
                raise no_memory(memory_id) from error
            self._read[key] = memory
        return memory

    def load_ready(self, owner: str, memory_ids: Sequence[str]) -> list[Memory]:
        """Memories that are to be read now.

        Raises:
            RequestError: If the owner has none of an id (404), or it is not ready (409).
        """
        for memory_id in memory_ids:
            record, _ = self._find(owner, memory_id)
            if record is None:
                raise RequestError(
                    "The memory is not ready.",
                    status=409,
                    code="memory_not_ready",
                    got=memory_id,
                    retry_after_s=1,
                )
        return [self.load(owner, memory_id) for memory_id in memory_ids]

    def drop(self, owner: str, memory_id: str) -> None:
        """Forget a memory, and give up the work on it.

        Raises:
            RequestError: If the owner has none of that id (404).
        """
        name = _name(owner, memory_id)
        with self._lock:
            job = self._jobs.pop(name, None)
            if job is not None:
                job.cancelled.set()
            try:
                self._store.remove_name(name)
            except MissingMemoryError as error:
                if job is None:
                    raise no_memory(memory_id) from error
                return
            self._store.collect()

    def _find(self, owner: str, memory_id: str) -> tuple[StoredMemory | None, Job | None]:
        """What the store knows of a memory, and work on it that is under way or failed."""
        name = _name(owner, memory_id)
        with self._lock:
            job = self._jobs.get(name)
            try:
                return self._store.get(name), job
            except MissingMemoryError as error:
                if job is None:
                    raise no_memory(memory_id) from error
                return None, job

    def _begin(self, job: Job) -> Job:
        name = _name(job.owner, job.id)
        with self._lock:
            before = self._jobs.get(name)
            if before is not None and not before.future.done():
                raise _in_progress()
            self._jobs[name] = job
        try:
            self._submit(job)
        except RequestError:
            with self._lock:
                self._jobs.pop(name, None)
            raise
        job.future.add_done_callback(self._forget_old_failures)
        return job

    def _forget_old_failures(self, _: Future[None]) -> None:
        with self._lock:
            failed = [name for name, job in self._jobs.items() if job.future.done()]
            for name in failed[:-KEPT_FAILURES]:
                del self._jobs[name]

    def _put(self, job: Job, memory: Memory, *, replaces: str | None = None) -> None:
        """Keep what a job made: from then on it is ready and not in work any more."""
        with self._lock:
            job.require_wanted()
            self._keep(job.owner, job.id, job.title, memory, replaces=replaces)
            self._jobs.pop(_name(job.owner, job.id), None)

    def _keep(
        self, owner: str, memory_id: str, title: str, memory: Memory, *, replaces: str | None = None
    ) -> None:
        """Put a memory on the disk in place of what the id stood for; the lock is held."""
        settings: Settings = {
            "content": hashlib.sha256(memory_bytes(memory)).hexdigest(),
            "owner": owner,
            "title": title,
        }
        name = _name(owner, memory_id)
        item = NewMemory(name=name, memory=memory, settings=settings, replaces=replaces)
        (added,) = self._store.add([item])
        if added.replaced is not None:
            self._store.collect()


def in_work(job: Job) -> MemoryObject:
    """A memory that is not ready yet."""
    return _described(job.id, None, job)


def _described(memory_id: str, record: StoredMemory | None, job: Job | None) -> MemoryObject:
    """A memory by what the store knows of it and the work on it, one of which there is."""
    title = job.title if job is not None else _title(record)
    made = MemoryObject(id=memory_id, object="memory", name=title, status="ready")
    if record is not None:
        made.created_at = int(datetime.fromisoformat(record.added_at).timestamp())
        made.tokens, made.positions = record.tokens, record.positions
        made.ratio = record.tokens / record.positions
        made.fidelity, made.bytes = record.fidelity, record.bytes
    if job is not None:
        done, spans = job.progress
        error = job.future.exception() if job.future.done() else None
        made.status = "in_progress" if error is None else "failed"
        made.progress = Progress(spans_done=done, spans=spans)
        if isinstance(error, Exception):
            made.error = error_body(error).error
    return made


def _new_id() -> str:
    return f"mem_{secrets.token_hex(12)}"


def _name(owner: str, memory_id: str) -> str:
    return f"{owner}/{memory_id}"


def _in_progress() -> RequestError:
    return RequestError(
        "The memory is being worked on.", status=409, code="memory_in_progress", retry_after_s=1
    )


def _title(record: StoredMemory | None) -> str:
    return "" if record is None else str(record.settings.get("title", ""))
