"""The memories of each owner, in one store.

A memory is kept under the name ``owner/id``; an owner only ever names own ones. Owner and
title are part of its settings and so of its address, so memories of two owners never become
one, and nobody can tell from a fast reply that somebody else has the same text.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

from icae.errors import MissingMemoryError, RequestError
from icae.memory import Memory, memory_bytes
from icae.store import MemoryStore, NewMemory, Settings, StoredMemory

_ID = re.compile(r"mem_[0-9a-f]{24}")


def new_memory_id() -> str:
    """A random id that cannot be guessed."""
    return f"mem_{secrets.token_hex(12)}"


def check_memory_id(memory_id: str) -> str:
    """Return an id if it has the form of one.

    Raises:
        RequestError: If it has not (404).
    """
    if not _ID.fullmatch(memory_id):
        raise no_memory(memory_id)
    return memory_id


def no_memory(memory_id: str) -> RequestError:
    """The error for a memory that is not there, or is another owner's."""
    return RequestError(
        "There is no such memory.", status=404, code="memory_not_found", got=memory_id[:80]
    )


@dataclass(frozen=True, kw_only=True)
class Shelved:
    """A memory of an owner.

    Attributes:
        id: Its id.
        title: What the owner calls it.
        record: What the store knows about it.
    """

    id: str
    title: str
    record: StoredMemory


class Shelf:
    """Memories in a store by owner and id; safe for several threads.

    Args:
        store: Keeps them.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._lock = threading.Lock()

    def list(self, owner: str) -> list[Shelved]:
        """All memories of an owner, those added last first."""
        start = f"{owner}/"
        with self._lock:
            records = self._store.records(under=start)
        found = [
            _shelved(name.removeprefix(start), record)
            for record in records
            for name in record.names
            if name.startswith(start)
        ]
        return sorted(found, key=lambda one: (one.record.added_at, one.id), reverse=True)

    def get(self, owner: str, memory_id: str) -> Shelved:
        """What is known about a memory.

        Raises:
            RequestError: If the owner has none of that id (404).
        """
        with self._lock:
            try:
                return _shelved(memory_id, self._store.get(_name(owner, memory_id)))
            except MissingMemoryError as error:
                raise no_memory(memory_id) from error

    def load(self, owner: str, memory_id: str) -> Memory:
        """A memory, read and checked.

        Raises:
            RequestError: If the owner has none of that id (404).
        """
        with self._lock:
            try:
                return self._store.load(_name(owner, memory_id))
            except MissingMemoryError as error:
                raise no_memory(memory_id) from error

    def put(
        self, owner: str, memory_id: str, title: str, memory: Memory, *, wanted: Callable[[], bool]
    ) -> None:
        """Keep a memory under an id, in place of what the id stood for.

        When this returns the memory is on the disk.

        Args:
            owner: Whose it is.
            memory_id: Its id.
            title: What the owner calls it.
            memory: The memory.
            wanted: Asked last: whether it is still to be kept; no `drop` comes between.
        """
        settings: Settings = {
            "content": hashlib.sha256(memory_bytes(memory)).hexdigest(),
            "owner": owner,
            "title": title,
        }
        item = NewMemory(name=_name(owner, memory_id), memory=memory, settings=settings)
        with self._lock:
            if not wanted():
                return
            (added,) = self._store.add([item])
            if added.replaced is not None:
                self._store.collect()

    def drop(self, owner: str, memory_id: str, *, before: Callable[[], bool]) -> None:
        """Forget a memory and give its space back.

        Args:
            owner: Whose it is.
            memory_id: Its id.
            before: Called first, while no `put` is under way: gives up work on the memory,
                and tells whether there was any.

        Raises:
            RequestError: If the owner has none of that id, and there was no such work (404).
        """
        with self._lock:
            given_up = before()
            try:
                self._store.remove_name(_name(owner, memory_id))
            except MissingMemoryError as error:
                if not given_up:
                    raise no_memory(memory_id) from error
                return
            self._store.collect()


def _name(owner: str, memory_id: str) -> str:
    return f"{owner}/{check_memory_id(memory_id)}"


def _shelved(memory_id: str, record: StoredMemory) -> Shelved:
    return Shelved(id=memory_id, title=str(record.settings.get("title", "")), record=record)
