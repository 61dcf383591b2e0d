"""What a writer is asked: one request a reply, named by the hash of all that is sent.

A request with the same id is the same question to the same model: a reply in the journal
answers it for good, whatever else of the build has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from icae.data.pwc.parsing import read_answer, read_pairs
from icae.data.pwc.prompts import (
    SPECIFIC_TOKENS,
    Prompt,
    answer_messages,
    pairs_messages,
)
from icae.data.pwc.records import Context, Message, Reply, Written

_JSON_TOKENS = 12


class Request(Protocol):
    """One question to a writer."""

    @property
    def id(self) -> str:
        """Hash of everything that is sent."""
        ...

    @property
    def context(self) -> Context:
        """The text that it is about."""
        ...

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is sent."""
        ...

    @property
    def expected_tokens(self) -> int:
        """Tokens that the reply usually takes."""
        ...

    def read(self, reply: Reply) -> Written:
        """Pairs and rejections of a reply."""
        ...


R = TypeVar("R", bound=Request)
Asked = TypeVar("Asked", bound=Request, contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """How a request is sent: with the messages, this makes its id.

    Attributes:
        model: Name of the model.
        options: Sampling options, as plain values.
    """

    model: str
    options: Mapping[str, Any]

    def id_of(self, messages: Sequence[Message]) -> str:
        """Id of a request with some messages, 32 hex digits."""
        content = [self.model, dict(self.options), [[m.role, m.content] for m in messages]]
        text = json.dumps(content, sort_keys=True, ensure_ascii=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PairsRequest:
    """All pairs of a context in one reply, as JSON."""

    id: str
    context: Context
    messages: tuple[Message, ...]
    specific: int
    general: tuple[Prompt, ...]

    @classmethod
    def make(
        cls, context: Context, *, specific: int, general: tuple[Prompt, ...], sent: Sent
    ) -> PairsRequest:
        """Ask for ``specific`` prompts with answers, and for answers to ``general``."""
        messages = pairs_messages(context, specific=specific, general=general)
        return cls(
            id=sent.id_of(messages),
            context=context,
            messages=messages,
            specific=specific,
            general=general,
        )

    @property
    def expected_tokens(self) -> int:
        """Tokens that the reply usually takes."""
        general = sum(prompt.tokens + _JSON_TOKENS for prompt in self.general)
        return self.specific * (SPECIFIC_TOKENS + 2 * _JSON_TOKENS) + general

    def read(self, reply: Reply) -> Written:
        """Pairs and rejections of a reply."""
        return read_pairs(self.context, reply, specific=self.specific, general=self.general)


@dataclass(frozen=True, kw_only=True)
class AnswerRequest:
    """The answer to one prompt, as plain text."""

    id: str
    context: Context
    messages: tuple[Message, ...]
    prompt: Prompt

    @classmethod
    def make(cls, context: Context, prompt: Prompt, *, sent: Sent) -> AnswerRequest:
        """Ask one prompt about a context."""
        messages = answer_messages(context, prompt)
        return cls(id=sent.id_of(messages), context=context, messages=messages, prompt=prompt)

    @property
    def expected_tokens(self) -> int:
        """Tokens that the reply usually takes."""
        return self.prompt.tokens

    def read(self, reply: Reply) -> Written:
        """The pair or its rejection."""
        return read_answer(self.context, reply, self.prompt)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A request that got no reply in this run; the next run asks again.

    Attributes:
        request: Its id.
        reason: Why, in the words of the service or of the network.
    """

    request: str
    reason: str


class Writer(Protocol[Asked]):
    """Writes replies: a service behind a URL, or the frozen decoder."""

    def write(self, requests: Sequence[Asked], *, record: Callable[[Reply], None]) -> list[Failure]:
        """Write a reply to each request, in any order.

        Args:
            requests: The requests.
            record: Takes each reply as soon as it is there; when it returns, the reply is
                on disk. Several threads may call it at once.

        Returns:
            The requests that were given up.

        Raises:
            IcaeError: If no request can be answered; what was recorded stays.
        """
        ...


def unanswered(
    requests: Iterable[R], replies: Mapping[str, Sequence[Reply]], *, asks: int
) -> Iterator[R]:
    """Requests that still need a reply.

    Args:
        requests: All requests.
        replies: Request id -> its replies so far.
        asks: Most replies to pay for until one has a pair that can be used.
    """
    for request in requests:
        known = replies.get(request.id, ())
        if len(known) < asks and not any(request.read(reply).pairs for reply in known):
            yield request
