"""Texts to go on with, as OpenAI's older API speaks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from icae.errors import RequestError
from icae.serve.answer_models import AnswerRequest, Figures, TopLogprob, Usage
from icae.serve.likely import Echo, Told

MAX_ANSWERS = 128
"""Most answers to one request: prompts times n."""

DEFAULT_TOKENS = 16
"""Most tokens of an answer where the request does not say, as in OpenAI's API."""

Prompt = str | list[int]


def _as_prompts(value: object) -> object:
    """A text, token ids, or a list of these, as a list of prompts."""
    prompts = [value] if isinstance(value, str) or _are_ids(value) else value
    if not isinstance(prompts, list) or not all(isinstance(p, str) or _are_ids(p) for p in prompts):
        raise ValueError("a text, token ids, or a list of these")
    if not all(prompts):
        raise ValueError("prompts of at least one token")
    return prompts


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


class CompletionRequest(AnswerRequest):
    """Prompts that are gone on with, read as they are: no template, no token before them."""

    NOTHING: ClassVar[Mapping[str, Sequence[object]]] = {"suffix": (None, "")}

    prompt: Annotated[
        list[Prompt],
        BeforeValidator(
            _as_prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
        Field(min_length=1, max_length=MAX_ANSWERS),
    ]
    max_tokens: int | None = Field(default=None, ge=0)
    logprobs: int | None = Field(
        default=None, ge=0, le=20, description="Of so many most likely tokens, and of each one."
    )
    echo: bool | None = Field(default=None, description="The prompt stands before the answer.")
    best_of: int | None = None

    @model_validator(mode="after")
    def _can_be_gone_on_with(self) -> Self:
        if self.best_of not in (None, self.answers):
            raise RequestError(
                "best_of is not supported.", code="unsupported_parameter", param="best_of"
            )
        if len(self.prompt) * self.answers > MAX_ANSWERS:
            raise RequestError(
                "The request has too many prompts.",
                param="prompt",
                got=f"{len(self.prompt)} prompts, {self.answers} answers to each",
                expected=f"at most {MAX_ANSWERS} answers",
            )
        return self

    @property
    def longest_answer(self) -> int | None:
        """Most tokens of an answer."""
        return DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def noted(self) -> int | None:
        """How many most likely tokens are noted beside each one, or None to note nothing."""
        return self.logprobs

    def written(self, text: str) -> str:
        """The text of an answer as it is."""
        return text

    def prompt_of(self, index: int) -> Prompt:
        """What the answer of an index goes on with."""
        return self.prompt[index // self.answers]


class CompletionLogprobs(BaseModel):
    """Log-probabilities of tokens; of the first one of a prompt there are none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]

    @classmethod
    def of(cls, told: Told, echo: Echo | None) -> CompletionLogprobs:
        """Those of an answer, behind those of its prompt where that is echoed."""
        made = cls(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        first = [] if echo is None else echo.first
        behind = [*([] if echo is None else echo.told), *told]
        texts = [*first, *(one.token for one in behind)]
        made.tokens += texts
        made.token_logprobs += [*(None for _ in first), *(one.logprob for one in behind)]
        made.top_logprobs += [
            *(None for _ in first),
            *(_by_text([*one.top_logprobs, one]) for one in behind),
        ]
        made.text_offset += [sum(map(len, texts[:at])) for at in range(len(texts))]
        return made


def _by_text(found: Sequence[TopLogprob]) -> dict[str, float]:
    """The most likely token of each text, and its log-probability."""
    best: dict[str, float] = {}
    for one in found:
        best[one.token] = max(one.logprob, best.get(one.token, one.logprob))
    return best


class CompletionChoice(BaseModel):
    """One answer."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(BaseModel):
    """Whole answers."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice] = Field(min_length=1)
    usage: Usage
    icae: Figures
