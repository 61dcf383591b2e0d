"""The memories of each owner, in one store, and the work on them.

A memory is kept under the name ``owner/id``; an owner only ever names own ones. Owner and
title are part of its settings and so of its address, so memories of two owners never become
one, and nobody can tell from a fast reply that somebody else has the same text.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from icae.engine import Engine
from icae.errors import MissingMemoryError, RequestError
from icae.memory import Memory, memory_bytes
from icae.serve.jobs import Job, Steps, compressing
from icae.serve.memory_models import MemoryRequest, no_memory
from icae.serve.metrics import Metrics
from icae.store import MemoryStore, NewMemory, Settings, StoredMemory

KEPT_FAILURES = 256
"""Failed jobs that can be asked about; older ones are forgotten."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A memory of an owner, ready or not.

    Attributes:
        id: Its id.
        title: What the owner calls it.
        record: What the store knows about it, or None while it is first made.
        job: Work on it that is under way or failed, if there is any.
    """

    id: str
    title: str
    record: StoredMemory | None
    job: Job | None


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
        self._jobs: dict[str, Job] = {}
        self._failed: OrderedDict[str, Job] = OrderedDict()

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
            record = self.get(owner, memory_id).record
            if record is None:
                raise no_memory(memory_id)
            with self._lock:
                memory = self._store.load(record.key)
            longer = self._icae.append(memory, text)
            self._put(job, longer, replaces=record.key)
            self._metrics.context_tokens.inc(longer.tokens - memory.tokens)

        entry = self.get(owner, memory_id)
        if entry.record is None and entry.job is not None:
            raise no_memory(memory_id) if entry.job.future.done() else _in_progress()
        return self._begin(Job(owner=owner, id=memory_id, title=entry.title, work=work))

    def take_in(self, owner: str, memory: Memory, *, title: str) -> Entry:
        """Keep a memory that was made elsewhere; it is on the disk when this returns.

        Raises:
            IncompatibleMemoryError: If another adapter or base model made it.
        """
        self._icae.require_own(memory)
        memory_id = _new_id()
        with self._lock:
            self._keep(owner, memory_id, title, memory)
        return self.get(owner, memory_id)

    def get(self, owner: str, memory_id: str) -> Entry:
        """What is known about a memory.

        Raises:
            RequestError: If the owner has none of that id (404).
        """
        name = _name(owner, memory_id)
        with self._lock:
            job = self._jobs.get(name) or self._failed.get(name)
            try:
                record = self._store.get(name)
            except MissingMemoryError as error:
                if job is None:
                    raise no_memory(memory_id) from error
                return Entry(id=memory_id, title=job.title, record=None, job=job)
        return Entry(id=memory_id, title=_title(record), record=record, job=job)

    def entries(self, owner: str) -> list[Entry]:
        """All memories of an owner, those in work first, then those added last."""
        start = _name(owner, "")
        with self._lock:
            records = self._store.records(under=start)
            jobs = [*self._jobs.items(), *self._failed.items()]
        named = {name: record for record in records for name in record.names}
        kept = [
            (record.added_at, name.removeprefix(start), record)
            for name, record in named.items()
            if name.startswith(start)
        ]
        return [
            Entry(id=job.id, title=job.title, record=None, job=job)
            for name, job in jobs
            if job.owner == owner and name not in named
        ] + [
            Entry(id=memory_id, title=_title(record), record=record, job=None)
            for _, memory_id, record in sorted(kept, key=lambda one: one[:2], reverse=True)
        ]

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
            if self.get(owner, memory_id).record is None:
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
            failed, job = self._failed.pop(name, None), self._jobs.pop(name, None)
            if job is not None:
                job.cancelled.set()
            try:
                self._store.remove_name(name)
            except MissingMemoryError as error:
                if failed is None and job is None:
                    raise no_memory(memory_id) from error
                return
            self._store.collect()

    def _begin(self, job: Job) -> Job:
        name = _name(job.owner, job.id)
        with self._lock:
            if name in self._jobs:
                raise _in_progress()
            self._jobs[name] = job
        try:
            self._submit(job)
        except RequestError:
            with self._lock:
                self._jobs.pop(name, None)
            raise
        job.future.add_done_callback(lambda _: self._settle(name, job))
        return job

    def _settle(self, name: str, job: Job) -> None:
        """Remember a job that failed; one that did not is settled where its memory is kept."""
        with self._lock:
            if self._jobs.get(name) is job:
                del self._jobs[name]
            if job.future.exception() is not None and not job.cancelled.is_set():
                self._failed[name] = job
                while len(self._failed) > KEPT_FAILURES:
                    self._failed.popitem(last=False)

    def _put(self, job: Job, memory: Memory, *, replaces: str | None = None) -> None:
        """Keep what a job made: from then on it is ready and not in work any more."""
        with self._lock:
            job.require_wanted()
            self._keep(job.owner, job.id, job.title, memory, replaces=replaces)
            name = _name(job.owner, job.id)
            self._failed.pop(name, None)
            self._jobs.pop(name, None)

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


def _new_id() -> str:
    return f"mem_{secrets.token_hex(12)}"


def _name(owner: str, memory_id: str) -> str:
    return f"{owner}/{memory_id}"


def _in_progress() -> RequestError:
    return RequestError(
        "The memory is being worked on.", status=409, code="memory_in_progress", retry_after_s=1
    )


def _title(record: StoredMemory) -> str:
    return str(record.settings.get("title", ""))
