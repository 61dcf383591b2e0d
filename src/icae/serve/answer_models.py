"""What requests for an answer have in common: its length, its sampling, its end, its pieces."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from icae.decode.sampling import Sampling
from icae.errors import RequestError


def _as_list(value: object) -> object:
    return [] if value is None else [value] if isinstance(value, str) else value


Stops = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=200)]],
    BeforeValidator(_as_list, json_schema_input_type=str | list[str] | None),
    Field(max_length=4),
]
"""Texts that end an answer: none, one, or up to 4."""


class StreamOptions(BaseModel):
    """How an answer is streamed."""

    model_config = ConfigDict(strict=True)

    include_usage: bool | None = None


class AnswerRequest(BaseModel):
    """What is asked of an answer; decoding is greedy unless there is a temperature.

    Fields of OpenAI's API that would change the answer and are not offered are refused where they
    ask for something; others that are not named here are taken and have no effect.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    NOTHING: ClassVar[Mapping[str, Sequence[object]]] = {}
    """Fields that are refused, with the values that ask for nothing."""

    model: str = Field(description="The one of /v1/models.")
    stop: Stops = Field(default=[], description="Texts that end the answer; not part of it.")
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="0 and null take the most likely token."
    )
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(
        default=None, ge=-(2**63), lt=2**63 - 8, description="The same seed draws the same answer."
    )
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        default=None, max_length=1024, description="Added to the logits of tokens, by their ids."
    )
    n: int | None = Field(default=None, ge=1, le=8, description="Answers to each prompt.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _asks_for_what_is_offered(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if value not in self.NOTHING.get(name, [value]):
                raise RequestError(
                    f"{name} is not supported.", code="unsupported_parameter", param=name
                )
        for token in self.logit_bias or {}:
            if not (token.isascii() and token.isdecimal()):
                raise RequestError(
                    "logit_bias names no token.",
                    param="logit_bias",
                    got=repr(token)[:80],
                    expected="ids of tokens",
                )
        return self

    @property
    @abstractmethod
    def longest_answer(self) -> int | None:
        """Most tokens of an answer, or None for as many as fit."""

    @property
    @abstractmethod
    def noted(self) -> int | None:
        """How many most likely tokens are noted beside each one, or None to note nothing."""

    @abstractmethod
    def written(self, text: str) -> str:
        """The text of an answer as it is given."""

    @property
    def answers(self) -> int:
        """How many answers to each prompt."""
        return self.n or 1

    def sampling(self, answer: int) -> Sampling:
        """How the tokens of one of several answers are chosen: each has a seed of its own."""
        return Sampling(
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=None if self.seed is None else self.seed + answer % self.answers,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            top_logprobs=self.noted,
        )

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class Usage(BaseModel):
    """Decoder positions read and tokens written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Figures(BaseModel):
    """What answers cost, beyond the fields of OpenAI's API; also in the last piece."""

    memory_positions: int = Field(description="Positions of all memories read.")
    compressed_tokens: int = Field(description="Tokens of messages read as memory.")
    kv_bytes: int = Field(description="Key-value cache when the answer ended.")
    seconds: float
    first_token_seconds: float
    runtime: str


class TopLogprob(BaseModel):
    """A token, its log-probability, and the UTF-8 of its text where it is whole characters."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """The same, and the most likely tokens in its place."""

    top_logprobs: list[TopLogprob]
