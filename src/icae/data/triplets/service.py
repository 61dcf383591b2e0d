"""An OpenAI-compatible chat service: many requests in flight, every answer kept as it comes.

Attempts, the pauses between them (also those that a service asks for) and timeouts are those of
the ``openai`` client.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from icae.config.extras import import_extra
from icae.config.parsing import check, check_ranges
from icae.data.triplets.records import Context, Reply, TripletConfig
from icae.data.triplets.requests import Failures, Message, Request, pairs_request
from icae.errors import ServiceError

logger = logging.getLogger(__name__)

FAILED_IN_A_ROW = 20
"""After so many requests given up without a reply between them, the run ends."""

_FATAL = {401, 402, 403, 404, 405}
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached"}


class _NoReplyError(Exception):
    """One request failed for good."""


@dataclass(frozen=True, kw_only=True)
class ChatService:
    """A service, how it is asked, and how long to go on trying.

    Attributes:
        url: Base URL, for example ``http://127.0.0.1:8000/v1``.
        model: Name of the model there.
        api_key: Key; empty where the service wants none. Never written anywhere.
        temperature: Sampling temperature.
        max_tokens: Most tokens of a reply.
        token_field: Field that carries `max_tokens`; newer OpenAI models want the longer name.
        concurrency: Requests in flight at once.
        timeout: Seconds of silence after which an attempt has failed.
        attempts: Most attempts for one request in one run.
    """

    url: str
    model: str
    api_key: str = field(default="", repr=False)
    temperature: float = 0.0
    max_tokens: int = 512
    token_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    concurrency: int = 4
    timeout: float = 60.0
    attempts: int = 3

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        usable = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        expected = "for example http://127.0.0.1:8000/v1, without user and password"
        message = "The address of the service is no URL."
        check(bool(usable), message, self.url.rpartition("@")[2], expected)
        check(
            bool(self.model), "The service has no model.", self.model, "the name of a model there"
        )
        counts = ("max_tokens", "concurrency", "attempts")
        check_ranges("service", self, at_least_one=counts, positive=("timeout",))
        fits = 0 <= self.temperature <= 2
        check(fits, "service.temperature is out of range.", self.temperature, "0..2")

    @property
    def options(self) -> Mapping[str, object]:
        """What is sent beside the messages."""
        return {"temperature": self.temperature, self.token_field: self.max_tokens}

    def answer(
        self, asked: Mapping[str, Sequence[Message]], record: Callable[[Reply], None]
    ) -> Failures:
        """Get a reply to each of some messages, by name; returns those that got none, and why.

        On Ctrl-C, and on an error that ends the run, requests in flight are waited for and
        recorded, as they are paid for. Several threads call ``record`` at once.

        Raises:
            ServiceError: If the service refuses every request (key, address, model, quota),
                or `FAILED_IN_A_ROW` requests in a row were given up.
            MissingDependencyError: If the client is not installed.
        """
        openai = import_extra("openai", purpose="A chat service", extra="pwc")
        client = openai.OpenAI(
            base_url=self.url,
            api_key=self.api_key or "none",
            timeout=self.timeout,
            max_retries=self.attempts - 1,
        )
        failures: Failures = {}
        in_a_row = 0
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="service") as pool:
            futures = {
                pool.submit(lambda one: record(self._reply(openai, client, *one)), one): one[0]
                for one in asked.items()
            }
            try:
                for future in as_completed(futures):
                    try:
                        future.result()
                        in_a_row = 0
                    except _NoReplyError as error:
                        failures[futures[future]] = str(error)
                        in_a_row += 1
                    if in_a_row >= FAILED_IN_A_ROW:
                        raise self._silent(in_a_row, failures[futures[future]])
            except BaseException:
                logger.warning("Stopping: the requests in flight are waited for and kept.")
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return failures

    def _reply(self, openai: Any, client: Any, name: str, messages: Sequence[Message]) -> Reply:
        try:
            answer = client.chat.completions.create(
                model=self.model, messages=list(messages), **self.options
            )
            choice, usage = answer.choices[0], answer.usage
            finish = choice.finish_reason
            return Reply(
                request=name,
                text=choice.message.content or "",
                finish=finish if finish in ("stop", "length") else "other",
                prompt_tokens=usage.prompt_tokens if usage else 0,
                completion_tokens=usage.completion_tokens if usage else 0,
                model=answer.model or self.model,
            )
        except openai.OpenAIError as error:
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            code = getattr(error, "code", None)
            if getattr(error, "status_code", None) in _FATAL or code in _NO_MONEY:
                raise self._refusing(words) from error
            raise _NoReplyError(words) from error
        except (ValueError, AttributeError, IndexError, TypeError) as error:
            raise _NoReplyError(f"an answer without choices ({error})") from error

    def _refusing(self, words: str) -> ServiceError:
        return ServiceError(
            "The service refuses the requests.",
            got=words,
            expected=f"model {self.model!r} at {self.url.partition('?')[0]}",
            fix="check address, model name, key and quota; what was answered so far is in the "
            "journal",
        )

    def _silent(self, given_up: int, last: str) -> ServiceError:
        return ServiceError(
            "The service does not answer.",
            got=f"{given_up} requests in a row were given up; the last: {last}",
            expected=f"an OpenAI-compatible service at {self.url.partition('?')[0]}",
            fix="when it is back, run the same command again: it goes on from the journal",
        )


class ServiceWriter:
    """A service that writes triplets; see `icae.data.triplets.requests.Writer`.

    Args:
        chat: The service.
        asks: Replies to pay for until one can be used.
    """

    def __init__(self, chat: ChatService, *, asks: int) -> None:
        check(asks >= 1, "service.asks is out of range.", asks, ">= 1")
        self.model, self.asks = chat.model, asks
        self.options: Mapping[str, object] = chat.options
        self.service = chat.url.partition("?")[0]
        self._chat = chat

    def requests(self, context: Context, config: TripletConfig) -> Sequence[Request]:
        """One request for all pairs of a context."""
        asked = config.specific or config.general
        return [pairs_request(self, context, config)] if asked else []

    def write(self, requests: Sequence[Request], record: Callable[[Reply], None]) -> Failures:
        """Get a reply to each request; raises as `ChatService.answer`."""
        return self._chat.answer({one.id: one.messages for one in requests}, record)
