"""The memories of each owner, in one store, and the work on them.

A memory is kept under the name ``owner/id``; an owner only ever names own ones. Owner and
title are part of its settings and so of its address, so memories of two owners never become
one, and nobody can tell from a fast reply that somebody else has the same text.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import TypeVar
from weakref import WeakValueDictionary

from icae.compression.compressor import Compressor
from icae.compression.living import Change
from icae.engine import Engine
from icae.errors import ConflictError, MissingMemoryError, RequestError
from icae.memory import Memory, memory_bytes
from icae.serve.jobs import Job, Progressing, Steps, Tokenizing, aside, changing, compressing
from icae.serve.memory_models import (
    MemoryObject,
    MemoryPage,
    MemoryRequest,
    Progress,
    no_memory,
)
from icae.serve.metrics import Metrics
from icae.serve.refusals import error_detail
from icae.serve.shelf import Shelf
from icae.store import MemoryStore, NewMemory, Settings, StoredMemory

T = TypeVar("T")

MOST_TRIES = 100
"""How often a change is done again because other servers were faster."""

Versions = Collection[str] | None
"""Versions of a memory of which one is to be changed; None: whichever it has."""

KEPT_FAILURES = 256
"""Failed jobs that can be asked about; older ones are forgotten."""


class Library:
    """Memories by owner and id, kept in `store`; safe for several threads.

    `submit` lets a job wait for the model.

    Attributes:
        tokenizing: Tokenizes documents apart from the model's thread.
    """

    def __init__(
        self, icae: Engine, store: MemoryStore, *, submit: Callable[[Job], None], metrics: Metrics
    ) -> None:
        self._icae = icae
        self.tokenizing = Tokenizing(icae.compressor)
        self._shelf = Shelf(store, metrics)
        self._storing = ThreadPoolExecutor(2, thread_name_prefix="icae-store")
        self._submit = submit
        self._metrics = metrics
        self._lock = threading.Lock()  # of the two below; never held while the store is waited for
        self._read: WeakValueDictionary[str, Memory] = WeakValueDictionary()
        self._jobs: dict[str, Job] = {}  # by name, under way or failed

    def create(self, owner: str, wanted: MemoryRequest, *, ratio: float) -> Job:
        """Begin to make a memory of a text, at `ratio` where that is not said.

        Raises:
            RequestError: If too many documents wait (429), or the server is closing (503).
        """

        def work(job: Job) -> Steps:
            memory = yield from compressing(self._icae, self.tokenizing, wanted, ratio=ratio)
            self._metrics.context_tokens.inc(memory.tokens)
            return (yield from self._aside(job, lambda: self._put(job, memory)))

        return self._begin(Job(owner=owner, id=_new_id(), title=wanted.name, work=work))

    def change(
        self,
        owner: str,
        memory_id: str,
        change: Callable[[Compressor, Memory], Change],
        *,
        versions: Versions = None,
    ) -> Job:
        """Begin to change a memory, in slices; until it is done the old one is read.

        Where another server changes it meanwhile, what that made of it is changed.

        Raises:
            RequestError: As for `create`; if the owner has no such memory (404), it is being
                worked on already (409), or has none of the versions (412).
        """

        def work(job: Job) -> Steps:
            yield 0, 1
            for tries_left in reversed(range(MOST_TRIES)):
                key, memory = yield from self._aside(job, lambda: self._load(owner, memory_id))
                _require_version(key, versions)
                changed = yield from changing(self._icae, self.tokenizing, memory, change)
                put = functools.partial(self._put, job, changed)
                try:
                    made = yield from self._aside(job, functools.partial(put, replaces=key))
                except ConflictError:
                    if not tries_left:
                        raise
                else:
                    break
            self._metrics.context_tokens.inc(max(made.tokens - memory.tokens, 0))
            return made

        record, job = self._find(owner, memory_id)
        if record is None:
            raise no_memory(memory_id) if job and job.future.done() else _in_progress()
        _require_version(record.key, versions)
        return self._begin(Job(owner=owner, id=memory_id, title=_title(record), work=work))

    def take_in(self, owner: str, memory: Memory, *, title: str) -> MemoryObject:
        """Keep a memory that was made elsewhere; it is on the disk when this returns.

        Raises:
            IncompatibleMemoryError: If another adapter or base model made it.
        """
        self._icae.require_own(memory)
        memory_id = _new_id()
        with self._shelf.writing() as store:
            return _described(memory_id, _keep(store, owner, memory_id, title, memory), None)

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
        with self._lock:  # before the store is read: what is done meanwhile is in either
            jobs = sorted(self._jobs.items(), key=lambda item: item[1].future.done())
        with self._shelf.reading() as store:
            records = store.records(under=start)
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
        return self._load(owner, memory_id)[1]

    def _load(self, owner: str, memory_id: str) -> tuple[str, Memory]:
        """Key of a memory, and the memory."""
        memory: Memory | None = None
        with self._shelf.reading() as store:
            while memory is None:
                try:
                    key = store.get(_name(owner, memory_id)).key
                except MissingMemoryError as error:
                    raise no_memory(memory_id) from error
                with suppress(MissingMemoryError):  # it was changed in between: once more
                    memory = self._read.get(key) or store.load(key)
            self._read[key] = memory
        return key, memory

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

    def drop(self, owner: str, memory_id: str, *, versions: Versions = None) -> None:
        """Forget a memory, and give up the work on it.

        Raises:
            RequestError: If the owner has none of that id (404), or it has none of the versions
                (412).
        """
        name, key = _name(owner, memory_id), None
        if versions is not None:
            record, _ = self._find(owner, memory_id)
            key = None if record is None else record.key
            _require_version(key, versions)
        with self._shelf.writing() as store:
            with self._lock:
                job = self._jobs.get(name)
            try:
                store.remove_name(name, stands_for=key)
            except ConflictError as error:
                raise _other_version(None, versions) from error
            except MissingMemoryError as error:
                if job is None:
                    raise no_memory(memory_id) from error
            else:
                store.collect()
            if job is not None:
                job.cancelled.set()
                with self._lock:
                    self._jobs.pop(name, None)

    def require_ready(self) -> None:
        """Try whether memories can be read and kept now; a StoreError if not."""
        self._shelf.require_ready()

    def close(self) -> None:
        """Wait for what is being kept, and let go of the store."""
        self._storing.shutdown()
        self._shelf.close()

    def _aside(self, job: Job, call: Callable[[], T]) -> Progressing[T]:
        """Have another thread call the store."""
        return aside(self._storing, call, progress=job.progress)

    def _find(self, owner: str, memory_id: str) -> tuple[StoredMemory | None, Job | None]:
        """What the store knows of a memory, and work on it that is under way or failed."""
        name = _name(owner, memory_id)
        with self._lock:
            job = self._jobs.get(name)
        with self._shelf.reading() as store:
            try:
                return store.get(name), job
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

    def _forget_old_failures(self, _: Future[MemoryObject]) -> None:
        with self._lock:
            failed = [name for name, job in self._jobs.items() if job.future.done()]
            for name in failed[:-KEPT_FAILURES]:
                del self._jobs[name]

    def _put(self, job: Job, memory: Memory, *, replaces: str | None = None) -> MemoryObject:
        """Keep what a job made: from then on it is ready and not in work any more."""
        with self._shelf.writing() as store:
            job.require_wanted()
            stored = _keep(store, job.owner, job.id, job.title, memory, replaces=replaces)
        with self._lock:
            self._jobs.pop(_name(job.owner, job.id), None)
        return _described(job.id, stored, None)


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
        made.fidelity, made.bytes, made.version = record.fidelity, record.bytes, record.key
    if job is not None:
        done, spans = job.progress
        error = job.future.exception() if job.future.done() else None
        made.status = "in_progress" if error is None else "failed"
        made.progress = Progress(spans_done=done, spans=spans)
        if isinstance(error, Exception):
            made.error = error_detail(error)
    return made


def _keep(
    store: MemoryStore,
    owner: str,
    memory_id: str,
    title: str,
    memory: Memory,
    *,
    replaces: str | None = None,
) -> StoredMemory:
    """Put a memory on the disk in place of what the id stood for."""
    settings: Settings = {
        "content": hashlib.sha256(memory_bytes(memory)).hexdigest(),
        "owner": owner,
        "title": title,
    }
    name = _name(owner, memory_id)
    item = NewMemory(name=name, memory=memory, settings=settings, replaces=replaces)
    (added,) = store.add([item])
    if added.replaced is not None:
        store.collect()
    return added.stored


def _require_version(now: str | None, versions: Versions) -> None:
    if versions is not None and now not in versions:
        raise _other_version(now, versions)


def _other_version(now: str | None, versions: Versions) -> RequestError:
    return RequestError(
        "The memory is no longer the version that was to be changed.",
        status=412,
        code="precondition_failed",
        got=f'"{now}"' if now else "another version",
        expected=" or ".join(f'"{one}"' for one in versions or ())[:200],
        fix="Nothing was changed. Read the memory again and send its ETag.",
    )


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
