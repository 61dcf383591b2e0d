"""The one thread that runs the model, and what waits for it.

Chats and documents take turns: while both wait, each gets half of the time, a token of all
chats or a step of one document at a time. So a long document does not hold up the chats,
and many chats do not starve a document.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque

from icae.errors import RequestError
from icae.serve.chats import Chat, Chats
from icae.serve.config import ServerConfig
from icae.serve.jobs import Job
from icae.serve.metrics import Metrics

LONGEST_RETRY_S = 60
"""Longest time after which a client is told to try again, s."""


class ModelWorker:
    """Runs chats and jobs on memories in a thread of its own, from `start` to `close`."""

    def __init__(self, chats: Chats, *, config: ServerConfig, metrics: Metrics) -> None:
        self._answering = chats
        self._config = config
        self._changed = threading.Condition()
        self._waiting: deque[Chat] = deque()
        self._jobs: deque[Job] = deque()
        self._stepping = 0
        self._closing_at: float | None = None
        self._seconds_apart = 1.0  # from one answered chat to the next lately
        self._owed_s = 0.0
        self._busy_s = 0.0
        self._thread = threading.Thread(target=self._run, name="icae-model", daemon=True)
        metrics.waiting.set_function(lambda: len(self._waiting))
        metrics.writing.set_function(lambda: len(self._answering))
        metrics.documents.set_function(lambda: len(self._jobs) + self._stepping)

    def start(self) -> None:
        """Begin to take work."""
        self._thread.start()

    def submit_chat(self, chat: Chat) -> None:
        """Let a chat wait for its answer.

        Raises:
            RequestError: If too many wait (429), or the server is closing (503).
        """
        with self._changed:
            self._require_open()
            if len(self._waiting) >= self._config.waiting:
                # About half of those who wait are answered by then.
                wait = self._seconds_apart * len(self._waiting) / 2
                raise _full("chats", max(1, min(LONGEST_RETRY_S, math.ceil(wait))))
            self._waiting.append(chat)
            self._changed.notify()

    def submit_job(self, job: Job) -> None:
        """Let a job wait for being done.

        Raises:
            RequestError: As for `submit_chat`.
        """
        with self._changed:
            self._require_open()
            if len(self._jobs) + self._stepping >= self._config.documents:
                raise _full("documents", LONGEST_RETRY_S)
            self._jobs.append(job)
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
        while self._wait():
            if self._answering or self._waiting:
                self._write()
            if self._jobs and (self._owed_s <= 0 or not self._answering):
                self._work()

    def _wait(self) -> bool:
        """Wait for work; false if the thread is to end."""
        with self._changed:
            while not (self._waiting or self._jobs or self._answering):
                if self._closing_at is not None:
                    return False
                self._changed.wait()
            if self._closing_at is not None and time.monotonic() > self._closing_at:
                for job in self._jobs:
                    job.future.set_exception(_closing())
                self._jobs.clear()
            return True

    def _write(self) -> None:
        """One token of the chats that are answered; others join them."""
        with self._changed:
            count = min(self._answering.room, len(self._waiting))
            chats = [self._waiting.popleft() for _ in range(count)]
        begin, before = time.monotonic(), len(self._answering)
        self._answering.take(chats)
        self._answering.step()
        seconds = time.monotonic() - begin
        self._busy_s += seconds
        for _ in range(before + len(chats) - len(self._answering)):
            self._seconds_apart += 0.2 * (self._busy_s - self._seconds_apart)
            self._busy_s = 0.0
        self._owed_s -= seconds

    def _work(self) -> None:
        """One step of the job that waited longest."""
        with self._changed:
            job = self._jobs.popleft()
            self._stepping = 1
        begin = time.monotonic()
        going_on = job.step()
        self._owed_s = time.monotonic() - begin
        with self._changed:
            self._stepping = 0
            if going_on:
                self._jobs.append(job)

    def _require_open(self) -> None:
        if self._closing_at is not None:
            raise _closing()


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
