"""An OpenAI-compatible service as a writer: many requests in flight, retries, one journal.

Needs the ``openai`` client (the extra ``pwc``). Its own retries are off: here a service that
asks for a pause pauses all workers, and every attempt is paced.
"""

from __future__ import annotations

import email.utils
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from icae.data.pwc.records import Finish, Reply
from icae.data.pwc.requests import Failure, Request
from icae.errors import ConfigError, MissingDependencyError, ServiceError
from icae.pwc.limits import Limits, Pace, StoppedError

logger = logging.getLogger(__name__)

TokenField = Literal["max_tokens", "max_completion_tokens"]

FAILED_IN_A_ROW = 20
"""After so many requests given up without a reply between them, the run ends."""

_RETRIED = {408, 409, 425, 429}
_FATAL = {401, 402, 403, 404, 405}
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached"}
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A service and how it is asked.

    Attributes:
        url: Base URL, for example ``http://127.0.0.1:8000/v1``.
        model: Name of the model there.
        api_key: Key; any text where the service wants none. Never written anywhere.
        temperature: Sampling temperature.
        max_tokens: Most tokens of a reply.
        token_field: Field that carries `max_tokens`; newer OpenAI models want the longer name.
    """

    url: str
    model: str
    api_key: str
    temperature: float = 0.7
    max_tokens: int = 4096
    token_field: TokenField = "max_tokens"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(
                "The address of the service is no URL.",
                got=self.url,
                expected="for example http://127.0.0.1:8000/v1",
            )
        if not self.model or self.max_tokens < 1 or not 0 <= self.temperature <= 2:
            raise ConfigError(
                "The request to the service is out of range.",
                got=f"model {self.model!r}, {self.max_tokens} tokens, "
                f"temperature {self.temperature}",
                expected="a model, tokens >= 1, temperature 0..2",
            )

    @property
    def options(self) -> dict[str, Any]:
        """Sampling options that are part of every request."""
        return {"temperature": self.temperature, self.token_field: self.max_tokens}


class _GivenUpError(Exception):
    """One request failed for good."""


class EndpointWriter:
    """Asks a service; see `icae.data.pwc.requests.Writer`.

    Args:
        endpoint: The service.
        limits: Pace and patience.

    Raises:
        MissingDependencyError: If the openai client is not installed.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        self._openai = _openai()
        self._endpoint, self._limits = endpoint, limits
        self._stop = threading.Event()
        self._pace = Pace(limits, self._stop)
        self._client = self._openai.OpenAI(
            base_url=endpoint.url,
            api_key=endpoint.api_key,
            timeout=limits.timeout,
            max_retries=0,
        )

    def write(
        self, requests: Sequence[Request], *, record: Callable[[Reply], None]
    ) -> list[Failure]:
        """Get a reply to each request.

        On Ctrl-C, and on an error that ends the run, requests in flight are waited for and
        recorded, as they are paid for.

        Args:
            requests: The requests.
            record: Takes each reply.

        Returns:
            The requests that were given up, each with the last error.

        Raises:
            ServiceError: If the service refuses every request (key, address, model, quota),
                or `FAILED_IN_A_ROW` requests in a row were given up.
        """
        self._stop.clear()
        failures: list[Failure] = []
        in_a_row = 0
        with ThreadPoolExecutor(self._limits.concurrency, thread_name_prefix="pwc") as pool:
            futures = {pool.submit(self._answer, one, record): one for one in requests}
            try:
                for future in as_completed(futures):
                    failure = _outcome(future, futures[future])
                    in_a_row = 0 if failure is None else in_a_row + 1
                    failures += [] if failure is None else [failure]
                    if in_a_row >= FAILED_IN_A_ROW:
                        raise self._unreachable(failures[-1].reason)
            except BaseException:
                self._stop.set()
                logger.warning("Stopping: the requests in flight are waited for and kept.")
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return failures

    def _answer(self, request: Request, record: Callable[[Reply], None]) -> None:
        """Attempt a request until there is a reply, and record it."""
        read = sum(len(m.content) for m in request.messages) // _CHARACTERS_PER_TOKEN
        expected = read + request.expected_tokens
        for attempt in range(1, self._limits.attempts + 1):
            self._pace.start(expected)
            try:
                reply = self._reply(request, self._send(request))
            except self._openai.APIStatusError as error:
                problem = self._judge(error)
            except (self._openai.OpenAIError, ValueError) as error:
                problem = " ".join(f"{type(error).__name__}: {error}".split())
            else:
                record(reply)
                taken = reply.prompt_tokens + reply.completion_tokens
                self._pace.settle(expected=expected, taken=taken or expected)
                return
            logger.info("attempt %d of %s: %s", attempt, request.id, problem)
            if attempt < self._limits.attempts:
                self._pace.back_off(attempt)
        raise _GivenUpError(f"{self._limits.attempts} attempts, the last: {problem}")

    def _send(self, request: Request) -> Any:
        messages: Any = [{"role": m.role, "content": m.content} for m in request.messages]
        return self._client.chat.completions.create(
            model=self._endpoint.model, messages=messages, **self._endpoint.options
        )

    def _reply(self, request: Request, answer: Any) -> Reply:
        """The reply in an answer of the service; ValueError if it has none."""
        choices = getattr(answer, "choices", None)
        if not choices:
            raise ValueError(f"an answer without choices: {str(answer)[:80]!r}")
        text, finish = choices[0].message.content, choices[0].finish_reason
        known: Finish = finish if finish in ("stop", "length") else "other"
        usage = getattr(answer, "usage", None)
        return Reply(
            request=request.id,
            text=text or "",
            finish=known,
            prompt_tokens=getattr(usage, "prompt_tokens", None) or 0,
            completion_tokens=getattr(usage, "completion_tokens", None) or 0,
            model=str(getattr(answer, "model", None) or self._endpoint.model),
        )

    def _judge(self, error: Any) -> str:
        """Say what a refusal means: a text if trying again may help, else an exception."""
        status, code = int(error.status_code), getattr(error, "code", None)
        words = " ".join(str(error.message).split())[:300]
        if status in _FATAL or code in _NO_MONEY:
            raise ServiceError(
                "The service refuses the requests.",
                got=words,
                expected=f"model {self._endpoint.model!r} at {public_url(self._endpoint.url)}",
                fix="check address, model name and key (--llm, --model, --api-key-env) and the "
                "quota; what was answered so far is in the journal",
            )
        if status not in _RETRIED and status < 500:
            raise _GivenUpError(words)
        seconds = retry_after(error.response.headers)
        if seconds is not None:
            self._pace.pause(seconds)
        return words

    def _unreachable(self, reason: str) -> ServiceError:
        return ServiceError(
            "The service does not answer.",
            got=f"{FAILED_IN_A_ROW} requests in a row were given up; the last: {reason}",
            expected=f"an OpenAI-compatible service at {public_url(self._endpoint.url)}",
            fix="when it is back, run the same command again: it goes on from the journal",
        )


def retry_after(headers: Any) -> float | None:
    """Seconds that a service asks to wait for.

    Args:
        headers: Headers of its answer: ``retry-after-ms``, or ``retry-after`` in seconds or
            as a date.

    Returns:
        Seconds, at least 0, or None if it does not say.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers.get(name)) * unit)
        except (TypeError, ValueError):
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after") or "")
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())


def public_url(url: str) -> str:
    """A URL without user, password, query and fragment, fit to be written down."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def _outcome(future: Future[None], request: Request) -> Failure | None:
    try:
        future.result()
    except _GivenUpError as error:
        return Failure(request=request.id, reason=str(error))
    except StoppedError:
        return Failure(request=request.id, reason="the run was stopped")
    return None


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingDependencyError(
            "Asking a service needs the openai client.",
            got="openai is not installed",
            expected="the extra 'pwc'",
            fix='pip install ".[pwc]" in the checkout, or pip install openai',
        ) from error
    return openai
