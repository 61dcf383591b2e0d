"""The store behind a server: bounded waits, and failures that are counted, logged, remembered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from icae.errors import ConflictError, MissingMemoryError, StoreError
from icae.serve.metrics import Metrics
from icae.serve.tracing import request_id
from icae.store import MemoryStore, open_store

WAIT_S = 5.0
"""How long a request waits for the store, s; readiness waits a fifth of it."""

log = logging.getLogger(__name__)


class Shelf:
    """One connection to a store that writes and one that reads, each for one thread at a time.

    Who reads does not wait for who writes, nor for another process that holds the store's lock.
    """

    def __init__(self, store: MemoryStore, metrics: Metrics) -> None:
        self._writer, self._reader = store, open_store(store.location)
        for one in (self._writer, self._reader):
            one.wait_at_most(WAIT_S)
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        self._errors = metrics.store_errors
        self._failed = False

    @contextmanager
    def reading(self) -> Iterator[MemoryStore]:
        """The store, to read it.

        Raises:
            StoreError: If it cannot be had in time; what the block raises is counted, too.
        """
        with self._noted(), _held(self._read_lock, WAIT_S):
            yield self._reader

    @contextmanager
    def writing(self) -> Iterator[MemoryStore]:
        """The store, to change it; errors as for `reading`."""
        with self._noted(), _held(self._write_lock, WAIT_S):
            yield self._writer
        self._failed = False

    def require_ready(self) -> None:
        """Try whether the store can be read and written now.

        Raises:
            StoreError: If it cannot be.
        """
        with _held(self._write_lock, WAIT_S / 5):
            # After a failure something is really written: a full disk shows in nothing less.
            with open_store(self._writer.location) as anew:
                anew.wait_at_most(WAIT_S / 5)
                anew.require_writable(commit=self._failed)
            self._failed = False

    def close(self) -> None:
        """Close the connection that reads; the other one is its owner's."""
        with self._read_lock:
            self._reader.close()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except (MissingMemoryError, ConflictError):
            raise
        except StoreError as error:
            self._failed = True
            self._errors.inc()
            log.error("The store failed request %s: %s", request_id(), error)
            raise


@contextmanager
def _held(lock: threading.Lock, seconds: float) -> Iterator[None]:
    if not lock.acquire(timeout=seconds):
        raise StoreError(
            "The store is in use by other requests.",
            got=f"no turn within {seconds:g} s",
            expected="a turn",
            fix="Try again later; nothing was changed.",
        )
    try:
        yield
    finally:
        lock.release()
