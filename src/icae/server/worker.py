"""The one thread that runs the model, and what waits for it.

Chats and documents take turns: after each batch of chats one step of one document. So a
long document does not hold up the chats, and many chats do not starve a document.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from icae.errors import RequestError
from icae.server.chat_work import ChatWork
from icae.server.document_work import DocumentWork
from icae.server.limits import Limits
from icae.server.metrics import Metrics
from icae.server.owner_limit import OwnerLimit

ROWS_TOGETHER = 16
"""Most chats that are answered together: what came later need not wait for more."""

LONGEST_RETRY_S = 60
"""Longest time after which a client is told to try again, s."""


@dataclass(kw_only=True)
class _Pace:
    """Seconds that a chat took of the model lately, as a running mean."""

    seconds: float = 1.0

    def note(self, seconds: float, chats: int) -> None:
        self.seconds += 0.2 * (seconds / chats - self.seconds)


class ModelWorker:
    """Runs chats and documents in a thread of its own, from `start` to `close`.

    Args:
        answer: Answers one streamed chat, or several others together.
        limits: How many may wait.
        metrics: Counts.
    """

    def __init__(
        self, answer: Callable[[Sequence[ChatWork]], None], *, limits: Limits, metrics: Metrics
    ) -> None:
        self._answer = answer
        self._limits = limits
        self._metrics = metrics
        self._owners = OwnerLimit(limits.per_owner)
        self._changed = threading.Condition()
        self._chats: deque[ChatWork] = deque()
        self._documents: deque[DocumentWork] = deque()
        self._stepping = 0
        self._closing_at: float | None = None
        self._pace = _Pace()
        self._thread = threading.Thread(target=self._run, name="icae-model", daemon=True)

    def start(self) -> None:
        """Begin to take work."""
        self._thread.start()

    def submit_chat(self, work: ChatWork) -> None:
        """Let a chat wait for its answer.

        Raises:
            RequestError: If too many wait (429), or the server is closing (503).
        """
        with self._changed:
            self._require_open()
            if len(self._chats) >= self._limits.waiting:
                raise _full("chats", self._retry_after())
            self._owners.take(work.owner)
            work.future.add_done_callback(lambda _: self._owners.give(work.owner))
            self._chats.append(work)
            self._count()
            self._changed.notify()

    def submit_document(self, work: DocumentWork) -> None:
        """Let a document wait for being worked on.

        Raises:
            RequestError: As for `submit_chat`.
        """
        with self._changed:
            self._require_open()
            if len(self._documents) + self._stepping >= self._limits.documents:
                raise _full("documents", LONGEST_RETRY_S)
            self._documents.append(work)
            self._count()
            self._changed.notify()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self, *, seconds: float) -> None:
        """Refuse new work, finish what waits, and end the thread.

        Args:
            seconds: How long documents may take to be finished; chats always are.
        """
        with self._changed:
            self._closing_at = time.monotonic() + seconds
            self._changed.notify()
        if self.alive:
            self._thread.join()

    def _run(self) -> None:
        while True:
            chats, document = self._next()
            if not chats and document is None:
                return
            if chats:
                begin = time.monotonic()
                self._answer(chats)
                self._pace.note(time.monotonic() - begin, len(chats))
            if document is not None:
                going_on = document.step()
                with self._changed:
                    self._stepping = 0
                    if going_on:
                        self._documents.append(document)
                    self._count()

    def _next(self) -> tuple[list[ChatWork], DocumentWork | None]:
        """What is done next; nothing if the thread is to end."""
        with self._changed:
            while not self._chats and not self._documents and self._closing_at is None:
                self._changed.wait()
            if self._closing_at is not None and time.monotonic() > self._closing_at:
                for waiting in self._documents:
                    waiting.fail(_closing())
                self._documents.clear()
            chats = self._take_chats()
            document = self._documents.popleft() if self._documents else None
            self._stepping = int(document is not None)
            self._count()
            return chats, document

    def _take_chats(self) -> list[ChatWork]:
        """The chat that waited longest, with all that can be answered together with it."""
        if not self._chats:
            return []
        first = self._chats[0]
        if first.on_text is not None:
            return [self._chats.popleft()]
        together = [work for work in self._chats if work.on_text is None][:ROWS_TOGETHER]
        chosen = {id(work) for work in together}
        self._chats = deque(work for work in self._chats if id(work) not in chosen)
        return together

    def _require_open(self) -> None:
        if self._closing_at is not None:
            raise _closing()

    def _retry_after(self) -> int:
        """Seconds after which about half of those who wait were answered."""
        wait = self._pace.seconds * len(self._chats) / 2
        return max(1, min(LONGEST_RETRY_S, math.ceil(wait)))

    def _count(self) -> None:
        self._metrics.waiting.set(len(self._chats))
        self._metrics.documents.set(len(self._documents) + self._stepping)


def _full(what: str, retry_after_s: int) -> RequestError:
    return RequestError(
        f"Too many {what} wait for the model.",
        status=429,
        code="queue_full",
        retry_after_s=retry_after_s,
        fix="Try again after the time in the header Retry-After.",
    )


def _closing() -> RequestError:
    return RequestError(
        "The server is shutting down.", status=503, code="shutting_down", retry_after_s=10
    )
