"""Pacing of requests to a service: so many requests and tokens a minute, and pauses."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from icae.errors import ConfigError


class StoppedError(Exception):
    """Waiting was ended because the run stops."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How fast a service may be asked, and how long to go on trying.

    Attributes:
        concurrency: Requests in flight at once.
        requests_per_minute: Most requests started in a minute, evenly spaced; None: no limit.
        tokens_per_minute: Most tokens read and written in a minute; None: no limit.
        attempts: Most attempts for one request in one run.
        timeout: Seconds without a byte from the service after which an attempt has failed.
        first_delay: Seconds before the second attempt; doubles with each further one.
        longest_delay: Most seconds between two attempts that are not set by the service.
    """

    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    attempts: int = 6
    timeout: float = 120.0
    first_delay: float = 1.0
    longest_delay: float = 60.0

    def __post_init__(self) -> None:
        rates = (self.requests_per_minute, self.tokens_per_minute)
        if (
            min(self.concurrency, self.attempts) < 1
            or min(self.timeout, self.first_delay, self.longest_delay) <= 0
            or any(rate is not None and rate <= 0 for rate in rates)
        ):
            raise ConfigError(
                "The limits are out of range.",
                got=repr(self),
                expected="concurrency and attempts >= 1, times and rates > 0",
            )

    def delay(self, attempt: int, *, jitter: float) -> float:
        """Seconds to wait after a failed attempt.

        Args:
            attempt: Attempts made so far, at least 1.
            jitter: 0..1; spreads the waits of many workers over half of the time.
        """
        longest = min(self.longest_delay, self.first_delay * 2.0 ** (attempt - 1))
        return longest * (0.5 + 0.5 * jitter)


class Pace:
    """Lets workers start requests no faster than the limits allow.

    Args:
        limits: The limits.
        stop: Ends every wait when it is set.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(
        self, limits: Limits, stop: threading.Event, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits, self._stop, self._clock = limits, stop, clock
        self._lock = threading.Lock()
        self._next_request = self._next_token = self._paused_until = clock()

    def start(self, tokens: int) -> None:
        """Wait until a request may start.

        Args:
            tokens: Tokens that it will probably take; see `settle`.

        Raises:
            StoppedError: If the run stops meanwhile.
        """
        self._wait_until(self._reserve(tokens))
        while (until := self._paused_until) > self._clock():
            self._wait_until(until)
        if self._stop.is_set():
            raise StoppedError

    def settle(self, *, expected: int, taken: int) -> None:
        """Correct the tokens of a request once they are known.

        Args:
            expected: As given to `start`.
            taken: What it took.
        """
        if self._limits.tokens_per_minute is not None:
            with self._lock:
                self._next_token += (taken - expected) * 60 / self._limits.tokens_per_minute

    def pause(self, seconds: float) -> None:
        """Let nobody start for some time: the service asked for it."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def wait(self, seconds: float) -> None:
        """Wait; `StoppedError` if the run stops meanwhile."""
        self._wait_until(self._clock() + seconds)

    def back_off(self, attempt: int) -> None:
        """Wait after a failed attempt, with jitter."""
        self.wait(self._limits.delay(attempt, jitter=random.random()))

    def _reserve(self, tokens: int) -> float:
        with self._lock:
            start = max(self._clock(), self._next_request, self._next_token)
            if self._limits.requests_per_minute is not None:
                self._next_request = start + 60 / self._limits.requests_per_minute
            if self._limits.tokens_per_minute is not None:
                self._next_token = start + tokens * 60 / self._limits.tokens_per_minute
            return start

    def _wait_until(self, moment: float) -> None:
        while (left := moment - self._clock()) > 0:
            if self._stop.wait(left):
                raise StoppedError
