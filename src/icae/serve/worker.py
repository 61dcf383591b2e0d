"""The one thread that runs the model, and what waits for it.

Chats and documents take turns: while both wait, each gets half of the time, a token of all
chats or a step of one document at a time. So a long document does not hold up the chats,
and many chats do not starve a document. Keys take turns in either queue. The long messages of
a chat are compressed as documents are, before it joins the others.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import Counter

from icae.errors import RequestError
from icae.serve.chats import Chat, Chats
from icae.serve.config import ServerConfig
from icae.serve.jobs import Job
from icae.serve.metrics import Metrics
from icae.serve.preparing import Preparing
from icae.serve.turns import Turns

AFTER_GRACE_S = 5.0
"""How long a step that was begun within the grace may go on after it, s."""

LONGEST_RETRY_S = 60
"""Longest time after which a client is told to try again, s."""


class ModelWorker:
    """Runs chats and jobs on memories in a thread of its own, from `start` to `close`."""

    def __init__(self, chats: Chats, *, config: ServerConfig, metrics: Metrics) -> None:
        self._answering = chats
        self._config = config
        self._changed = threading.Condition()
        self._waiting: Turns[Chat] = Turns(config.waiting)
        self._jobs: Turns[Job | Preparing] = Turns(config.documents)
        self._preparing: Counter[str] = Counter()  # by owner
        self._prepared: list[Chat] = []
        self._taken: list[Chat] = []
        self._queued = metrics.queued
        self._stepping = 0
        self._closing_at: float | None = None
        self._seconds_apart = 1.0  # from one answered chat to the next lately
        self._owed_s = 0.0
        self._busy_s = 0.0
        self._thread = threading.Thread(target=self._run, name="icae-model", daemon=True)
        metrics.waiting.set_function(lambda: len(self._waiting))
        metrics.writing.set_function(lambda: len(self._answering))
        metrics.documents.set_function(lambda: len(self._jobs) + self._stepping - self._slicing)

    @property
    def _slicing(self) -> int:
        """Chats that are being prepared, among the jobs."""
        return self._preparing.total()

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
            self._drop_unwanted()
            if not self._waiting.room_for(chat.owner, under_way=self._slicing):
                # About half of those of this key are answered by then; others have turns between.
                turns = self._waiting.of(chat.owner) * self._waiting.owners
                wait = self._seconds_apart * turns / 2
                raise _full("chats", max(1, min(LONGEST_RETRY_S, math.ceil(wait))))
            self._waiting.add(chat)
            self._changed.notify()

    def submit_job(self, job: Job) -> None:
        """Let a job wait for being done.

        Raises:
            RequestError: As for `submit_chat`.
        """
        with self._changed:
            self._require_open()
            under_way = self._stepping - self._slicing
            if not self._jobs.room_for(job.owner, under_way=under_way):
                raise _full("documents", LONGEST_RETRY_S)
            self._jobs.add(job)
            self._changed.notify()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def require_open(self) -> None:
        """Refuse (RequestError, 503) where the thread does not run or is about to end."""
        self._require_open()
        if not self.alive:
            raise RequestError("The model does not run.", status=503, code="unavailable")

    def drain(self, *, seconds: float) -> None:
        """Refuse new work and what waits; what has begun may take some seconds to be finished.

        Called again it changes nothing.
        """
        with self._changed:
            if self._closing_at is None:
                self._closing_at = time.monotonic() + seconds
            for chat in self._waiting.take_out(lambda _: True):
                if chat.future.set_running_or_notify_cancel():
                    chat.fail(_closing())
            for job in self._jobs.take_out(lambda job: not job.begun):
                job.fail(_closing())
            self._changed.notify()

    def close(self, *, seconds: float) -> None:
        """Drain and end the thread; one that hangs in a step is left to the process's end."""
        self.drain(seconds=seconds)
        if self.alive and self._closing_at is not None:
            self._thread.join(timeout=max(0.0, self._closing_at - time.monotonic()) + AFTER_GRACE_S)

    def _run(self) -> None:
        while self._wait():
            if self._answering or self._waiting or self._prepared:
                self._write()
            if self._jobs and (self._owed_s <= 0 or not self._answering):
                self._work()

    def _wait(self) -> bool:
        """Wait for work; false if the thread is to end."""
        with self._changed:
            while not (self._waiting or self._prepared or self._jobs or self._answering):
                if self._closing_at is not None:
                    return False
                self._changed.wait()
            if self._closing_at is not None and time.monotonic() > self._closing_at:
                for job in self._jobs.take_out(lambda _: True):
                    job.fail(_closing())
                for chat in self._taken:
                    chat.ending = _closing()
                    chat.stop.set()
            return True

    def _drop_unwanted(self) -> None:
        """Let those leave the queue whose clients have gone; the lock is held."""
        for chat in self._waiting.take_out(lambda chat: chat.unwanted):
            chat.give_up()

    def _write(self) -> None:
        """One token of the chats that are answered; others join them."""
        with self._changed:
            self._drop_unwanted()
            chats = self._next()
            self._taken = [one for one in (*self._taken, *chats) if not one.future.done()]
        begin, before = time.monotonic(), len(self._answering)
        for chat in chats:
            self._queued.observe(begin - chat.submitted_at)
            self._prepare(chat)
        chats, self._prepared = self._prepared, []
        self._answering.take(chats)
        self._answering.step()
        seconds = time.monotonic() - begin
        self._busy_s += seconds
        for _ in range(before + len(chats) - len(self._answering)):
            self._seconds_apart += 0.2 * (self._busy_s - self._seconds_apart)
            self._busy_s = 0.0
        self._owed_s -= seconds

    def _next(self) -> list[Chat]:
        """Those of the chats that wait which can be taken, owners in turn; the lock is held."""
        chats: list[Chat] = []
        coming = self._preparing + Counter(chat.owner for chat in self._prepared)
        may_take = functools.partial(self._answering.may_take, coming=coming)
        while (chat := self._waiting.next(may=may_take)) is not None:
            coming[chat.owner] += 1
            chats.append(chat)
        return chats

    def _prepare(self, chat: Chat) -> None:
        """Begin to prepare a chat; where that takes longer it goes on between tokens of others."""
        self._preparing[chat.owner] += 1
        steps = self._answering.preparing(chat)
        ended = functools.partial(self._end_preparing, chat)
        preparing = Preparing(chat=chat, steps=steps, ended=ended)
        if preparing.step():
            with self._changed:
                self._jobs.add(preparing)

    def _end_preparing(self, chat: Chat, ready: bool) -> None:
        self._preparing[chat.owner] -= 1
        if ready:
            self._prepared.append(chat)

    def _work(self) -> None:
        """One step of a job of the key whose turn it is."""
        with self._changed:
            job = self._jobs.next()
            assert job is not None, "there is work"
            self._stepping = 1
        begin = time.monotonic()
        going_on = job.step()
        self._owed_s = time.monotonic() - begin
        with self._changed:
            self._stepping = 0
            if going_on:
                self._jobs.add(job)

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
