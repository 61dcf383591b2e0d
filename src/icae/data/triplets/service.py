"""An OpenAI-compatible service as a writer: many requests in flight, paced, with retries.

A service that asks for a pause pauses all workers, and every attempt is paced.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import logging
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.message import Message as Headers
from typing import Literal
from urllib.parse import urlsplit

from icae.config.parsing import check, check_ranges
from icae.data.triplets.records import Context, Finish, Reply, TripletConfig
from icae.data.triplets.requests import Failures, Request, pairs_request
from icae.errors import ServiceError

logger = logging.getLogger(__name__)

FAILED_IN_A_ROW = 20
"""After so many requests given up without a reply between them, the run ends."""

_RETRIED = {408, 409, 425, 429}
_FATAL = {401, 402, 403, 404, 405}
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached"}
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """A service, how it is asked, how fast, and how long to go on trying.

    Attributes:
        url: Base URL, for example ``http://127.0.0.1:8000/v1``.
        api_key: Key; any text where the service wants none. Never written anywhere.
        max_tokens: Most tokens of a reply.
        token_field: Field that carries `max_tokens`; newer OpenAI models want the longer name.
        asks: Replies to pay for until one can be used.
        concurrency: Requests in flight at once.
        requests_per_minute: Most requests started in a minute, evenly spaced.
        tokens_per_minute: Most tokens read and written in a minute.
        timeout: Seconds of silence after which an attempt has failed.
        attempts: Most attempts for one request in one run.
        first_delay: Seconds before the second attempt; doubles with each further one.
        longest_delay: Most seconds between two attempts that are not set by the service.
    """

    url: str
    model: str
    api_key: str
    temperature: float = 0.7
    max_tokens: int = 4096
    token_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    asks: int = 3
    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 120.0
    attempts: int = 6
    first_delay: float = 1.0
    longest_delay: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        usable = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        expected = "for example http://127.0.0.1:8000/v1, without user and password"
        message = "The address of the service is no URL."
        check(bool(usable), message, self.url.rpartition("@")[2], expected)
        counts = ("max_tokens", "asks", "concurrency", "attempts")
        limits = ("requests_per_minute", "tokens_per_minute")
        given = [name for name in limits if getattr(self, name) is not None]
        times = ("timeout", "first_delay", "longest_delay", *given)
        check_ranges("service", self, at_least_one=counts, positive=times)
        fits = 0 <= self.temperature <= 2
        check(fits, "service.temperature is out of range.", self.temperature, "0..2")


class _GivenUpError(Exception):
    """One request failed for good."""


class _StoppedError(Exception):
    """A request was not made because the run stops."""


class ServiceWriter:
    """Asks a service; see `icae.data.triplets.requests.Writer`."""

    def __init__(self, config: ServiceConfig) -> None:
        self.model, self.asks = config.model, config.asks
        self.service = config.url.partition("?")[0]
        self.options: Mapping[str, object] = {
            "temperature": config.temperature,
            config.token_field: config.max_tokens,
        }
        self._config = config
        self._stop = threading.Event()
        self._pace = Pace(config, self._stop)

    def requests(self, context: Context, config: TripletConfig) -> Sequence[Request]:
        """One request for all pairs of a context."""
        asked = config.specific or config.general
        return [pairs_request(self, context, config)] if asked else []

    def write(self, requests: Sequence[Request], record: Callable[[Reply], None]) -> Failures:
        """Get a reply to each request.

        On Ctrl-C, and on an error that ends the run, requests in flight are waited for and
        recorded, as they are paid for.

        Raises:
            ServiceError: If the service refuses every request (key, address, model, quota),
                or `FAILED_IN_A_ROW` requests in a row were given up.
        """
        self._stop.clear()
        failures: Failures = {}
        in_a_row = 0
        with ThreadPoolExecutor(self._config.concurrency, thread_name_prefix="service") as pool:
            futures = {pool.submit(self._answer, one, record): one.id for one in requests}
            try:
                for future in as_completed(futures):
                    try:
                        future.result()
                        in_a_row = 0
                    except _StoppedError:
                        continue  # what stopped the run is raised by another request
                    except _GivenUpError as error:
                        failures[futures[future]] = str(error)
                        in_a_row += 1
                    if in_a_row >= FAILED_IN_A_ROW:
                        last = failures[futures[future]]
                        raise ServiceError(
                            "The service does not answer.",
                            got=f"{in_a_row} requests in a row were given up; the last: {last}",
                            expected=f"an OpenAI-compatible service at {self.service}",
                            fix="when it is back, run the same command again: it goes on from "
                            "the journal",
                        )
            except BaseException:
                self._stop.set()
                logger.warning("Stopping: the requests in flight are waited for and kept.")
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return failures

    def _answer(self, request: Request, record: Callable[[Reply], None]) -> None:
        """Attempt a request until there is a reply, and record it."""
        read = sum(len(m["content"]) for m in request.messages) // _CHARACTERS_PER_TOKEN
        expected = read + request.expected_tokens
        for attempt in range(1, self._config.attempts + 1):
            self._pace.start(expected)
            try:
                reply = self._attempt(request)
            except urllib.error.HTTPError as error:
                problem = self._judge(error)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = " ".join(f"{type(error).__name__}: {error}".split())
            else:
                record(reply)
                taken = reply.prompt_tokens + reply.completion_tokens
                self._pace.settle(expected=expected, taken=taken or expected)
                return
            logger.info("attempt %d of %s: %s", attempt, request.id, problem)
            if attempt < self._config.attempts:
                self._pace.back_off(attempt)
        raise _GivenUpError(f"{self._config.attempts} attempts, the last: {problem}")

    def _attempt(self, request: Request) -> Reply:
        """Send a request once; ValueError if what comes back is no answer."""
        body = {"model": self.model, "messages": request.messages, **self.options}
        headers = {"Content-Type": "application/json"}
        headers["Authorization"] = f"Bearer {self._config.api_key}"
        url = self._config.url.rstrip("/") + "/chat/completions"
        sent = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(sent, timeout=self._config.timeout) as response:
            answer = json.load(response)
        try:
            choice = answer["choices"][0]
            text, finish = choice["message"]["content"], choice.get("finish_reason")
            usage = answer.get("usage") or {}
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"an answer without choices: {str(answer)[:80]!r}") from error
        known: Finish = finish if finish in ("stop", "length") else "other"
        return Reply(
            request=request.id,
            text=text or "",
            finish=known,
            prompt_tokens=usage.get("prompt_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
            model=str(answer.get("model") or self.model),
        )

    def _judge(self, error: urllib.error.HTTPError) -> str:
        """Say what a refusal means: a text if trying again may help, else an exception."""
        words, code = f"Error code: {error.code}", None
        try:
            said = json.load(error)["error"]
            words, code = f"{words} - {said['message']}", said.get("code")
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
            pass  # a body in another form says nothing more
        words = " ".join(words.split())[:300]
        if error.code in _FATAL or code in _NO_MONEY:
            self._stop.set()
            raise ServiceError(
                "The service refuses the requests.",
                got=words,
                expected=f"model {self.model!r} at {self.service}",
                fix="check address, model name and key (--llm, --model, --api-key-env) and the "
                "quota; what was answered so far is in the journal",
            )
        if error.code not in _RETRIED and error.code < 500:
            raise _GivenUpError(words)
        self._pace.pause(retry_after(error.headers))
        return words


class Pace:
    """Lets workers start requests no faster than the limits allow, until a stop is set."""

    def __init__(
        self,
        config: ServiceConfig,
        stop: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._stop, self._clock = config, stop, clock
        self._lock = threading.Lock()
        self._next_request = self._next_token = self._paused_until = clock()

    def start(self, tokens: int) -> None:
        """Wait until a request that will take about so many tokens may start."""
        with self._lock:
            start = max(self._clock(), self._next_request, self._next_token)
            if self._config.requests_per_minute is not None:
                self._next_request = start + 60 / self._config.requests_per_minute
            if self._config.tokens_per_minute is not None:
                self._next_token = start + tokens * 60 / self._config.tokens_per_minute
        self._wait_until(start)
        while (until := self._paused_until) > self._clock():
            self._wait_until(until)

    def settle(self, *, expected: int, taken: int) -> None:
        """Correct the tokens given to `start` once it is known what the request took."""
        if self._config.tokens_per_minute is not None:
            with self._lock:
                self._next_token += (taken - expected) * 60 / self._config.tokens_per_minute

    def pause(self, seconds: float) -> None:
        """Let nobody start for some time: the service asked for it."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def back_off(self, attempt: int) -> None:
        """Wait after a failed attempt: longer each time, less up to half at random."""
        longest = min(self._config.longest_delay, self._config.first_delay * 2.0 ** (attempt - 1))
        self._wait_until(self._clock() + longest * random.uniform(0.5, 1.0))

    def _wait_until(self, moment: float) -> None:
        while not self._stop.is_set() and (left := moment - self._clock()) > 0:
            self._stop.wait(left)
        if self._stop.is_set():
            raise _StoppedError


def retry_after(headers: Headers) -> float:
    """Seconds that a service asks to wait for in its headers; 0 if it does not say."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers.get(name, "")) * unit)
        except ValueError:
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return 0.0 if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())
