"""What the open requests of a build will take: tokens and money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icae.data.pwc.records import Reply
from icae.data.pwc.requests import Request
from icae.data.shards import TokenizerLike
from icae.errors import ConfigError

_TOKENS_PER_MESSAGE = 4
_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Price:
    """Price of a model, in any currency.

    Attributes:
        prompt: For a million tokens read.
        completion: For a million tokens written.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        if not (0 <= self.prompt < float("inf") and 0 <= self.completion < float("inf")):
            raise ConfigError("The price is out of range.", got=repr(self), expected=">= 0")

    def of(self, *, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of so many tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Tokens of a number of requests.

    Attributes:
        requests: How many.
        prompt_tokens: Tokens read, counted with the tokenizer of the base model; that of the
            service differs by a few percent on English text.
        completion_tokens: Tokens written: expected ones, scaled by what the replies so far
            took.
        from_replies: Replies behind that scale; 0 if there are none yet.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    from_replies: int


def count_prompt_tokens(requests: Sequence[Request], tokenizer: TokenizerLike) -> list[int]:
    """Tokens that each request has its model read.

    Args:
        requests: The requests.
        tokenizer: Counts them.
    """
    counts: list[int] = []
    for start in range(0, len(requests), _BATCH):
        group = requests[start : start + _BATCH]
        texts = ["\n".join(m.content for m in request.messages) for request in group]
        ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        counts.extend(
            len(one) + _TOKENS_PER_MESSAGE * len(request.messages)
            for one, request in zip(ids, group, strict=True)
        )
    return counts


def estimate(
    to_do: Sequence[Request],
    answered: Sequence[Request],
    replies: Mapping[str, Sequence[Reply]],
    tokenizer: TokenizerLike,
) -> Estimate:
    """Estimate what is still to be paid for.

    Args:
        to_do: Requests to send.
        answered: Requests that have replies.
        replies: Request id -> its replies.
        tokenizer: Counts the tokens of what is sent.
    """
    known = [
        (request.expected_tokens, reply.completion_tokens)
        for request in answered
        for reply in replies.get(request.id, ())
        if reply.completion_tokens
    ]
    expected = sum(one for one, _ in known)
    scale = sum(taken for _, taken in known) / expected if expected else 1.0
    return Estimate(
        requests=len(to_do),
        prompt_tokens=sum(count_prompt_tokens(to_do, tokenizer)),
        completion_tokens=round(scale * sum(request.expected_tokens for request in to_do)),
        from_replies=len(known),
    )
