"""Get a reply to every request of a build, each paid for once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from icae.data.pwc.journal import Journal
from icae.data.pwc.records import Reply
from icae.data.pwc.requests import Failure, Request, Writer, unanswered

R = TypeVar("R", bound=Request)


def ask_all(
    requests: Sequence[R],
    writer: Writer[R],
    journal: Journal,
    *,
    asks: int,
    on_progress: Callable[[int, int], None],
) -> list[Failure]:
    """Have every open request answered.

    A reply in which nothing can be used is asked for again, up to ``asks`` times in all.

    Args:
        requests: All requests of the build; those that the journal answers are not sent.
        writer: Writes the replies.
        journal: Keeps them.
        asks: Most replies to one request, over all runs.
        on_progress: Called with (answered requests, all requests).

    Returns:
        Requests that got no reply in this run.

    Raises:
        IcaeError: If the writer can answer no request; the journal keeps what came before.
    """
    failures: list[Failure] = []
    for _ in range(asks):
        given_up = {failure.request for failure in failures}
        to_do = [
            request
            for request in unanswered(requests, journal.replies, asks=asks)
            if request.id not in given_up
        ]
        if not to_do:
            break
        count = _Count(len(requests) - len(to_do), len(requests), on_progress)

        def record(reply: Reply, count: _Count = count) -> None:
            journal.append(reply)
            count.one_more()

        failures += writer.write(to_do, record=record)
    return failures


class _Count:
    """Counts replies from several threads."""

    def __init__(self, done: int, total: int, on_progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._on_progress = done, total, on_progress
        self._lock = threading.Lock()
        on_progress(done, total)

    def one_more(self) -> None:
        with self._lock:
            self._done += 1
            self._on_progress(self._done, self._total)
