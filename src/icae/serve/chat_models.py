"""Chats as the API speaks of them: OpenAI's format, and memories as parts of a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import from_json

from icae.errors import RequestError
from icae.serve.answer_models import AnswerRequest, Figures, TokenLogprob, Usage
from icae.serve.memory_models import MemoryId

MAX_MEMORIES = 64
"""Most memories that a conversation refers to."""


class TextPart(BaseModel):
    """Text of a message."""

    type: Literal["text"] = "text"
    text: str


class MemoryPart(BaseModel):
    """A memory that a message of the user or the system refers to."""

    type: Literal["memory"]
    id: MemoryId


Rendered = dict[str, Any]
"""What a chat template reads."""


class ToolFunction(BaseModel):
    """What a tool was called with."""

    name: str
    arguments: str = ""


class ToolCall(BaseModel):
    """A call of a tool in an answer of before."""

    id: str | None = None
    function: ToolFunction

    @property
    def rendered(self) -> Rendered:
        """As chat templates read it: the arguments are an object."""
        arguments: object = self.function.arguments
        with suppress(ValueError):
            arguments = from_json(self.function.arguments or "{}")  # bounds how deep it goes
        function = {"name": self.function.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


class Tool(BaseModel):
    """A function that may be called."""

    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    function: Rendered = Field(description="name, description and parameters (a JSON schema).")


Part = Annotated[TextPart | MemoryPart, Field(discriminator="type")]


def _as_parts(content: object) -> object:
    if content is None:
        return []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Message(BaseModel):
    """One message of a conversation; of an answer the content may be null."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[
        list[Part], BeforeValidator(_as_parts, json_schema_input_type=str | list[Part] | None)
    ]
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    function_call: ToolFunction | None = None

    @model_validator(mode="before")
    @classmethod
    def _answer_may_have_no_content(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("role") == "assistant":
            return {"content": None, **value}
        return value

    @property
    def told(self) -> str:
        """What was said, and below it which tools were called with what."""
        calls = [call.function for call in self.tool_calls or []]
        calls += [] if self.function_call is None else [self.function_call]
        return "\n".join(filter(None, [self.text, *(f"{c.name}({c.arguments})" for c in calls)]))

    def rendered(self, text: str) -> Rendered:
        """As a chat template with tools reads it, with this text."""
        role = "system" if self.role == "developer" else self.role
        calls = [call.rendered for call in self.tool_calls or []]
        more = {"tool_calls": calls, "tool_call_id": self.tool_call_id, "name": self.name}
        return {"role": role, "content": text, **{k: v for k, v in more.items() if v}}

    @property
    def text(self) -> str:
        """What was said."""
        texts = [part.text for part in self.content if isinstance(part, TextPart)]
        return "\n\n".join(filter(None, texts))

    @property
    def memory_ids(self) -> list[str]:
        """The memories it refers to."""
        return [part.id for part in self.content if isinstance(part, MemoryPart)]


class ChatRequest(AnswerRequest):
    """A conversation that is to be answered."""

    NOTHING: ClassVar[Mapping[str, Sequence[object]]] = {
        "functions": (None, []),
        "audio": (None,),
        "response_format": (None, {"type": "text"}),
    }

    messages: list[Message] = Field(
        min_length=1, max_length=1000, description="The last one is the user's."
    )
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = Field(default=None, description="Log-probabilities of the tokens.")
    top_logprobs: int | None = Field(
        default=None, ge=0, le=20, description="Of so many most likely ones, too; needs logprobs."
    )
    tools: list[Tool] | None = Field(
        default=None, description="Written by the chat template, where it has tools."
    )
    tool_choice: Literal["none", "auto"] | None = None
    auto_compress: int | None = Field(
        default=None,
        ge=0,
        description="Read messages of more tokens as memory; 0 never does, null leaves it to the "
        "server.",
    )

    @model_validator(mode="after")
    def _can_be_answered(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("top_logprobs needs logprobs.", param="top_logprobs")
        for at, message in enumerate(self.messages):
            if message.role == "function":
                raise no_tools(f"messages[{at}].role")
            if not message.content and message.role != "assistant":
                raise RequestError(
                    "A message has no content.",
                    param=f"messages[{at}].content",
                    expected="text or parts",
                )
            if message.role == "assistant" and message.memory_ids:
                raise RequestError(
                    "An answer refers to a memory.",
                    param=f"messages[{at}].content",
                    expected="memories in messages of the user or the system",
                )
        if self.messages[-1].role not in ("user", "tool"):
            raise RequestError("The last message is not the user's.", param="messages")
        if len(self.memory_ids) > MAX_MEMORIES:
            raise RequestError(
                "The conversation refers to too many memories.",
                param="messages",
                got=str(len(self.memory_ids)),
                expected=f"at most {MAX_MEMORIES}",
            )
        return self

    @property
    def offered(self) -> list[Rendered] | None:
        """The tools that may be called, if any, as the chat template reads them."""
        if self.tool_choice == "none":
            return None
        return [tool.model_dump() for tool in self.tools or ()] or None

    @property
    def tools_at(self) -> str | None:
        """Where there are tools, or None: only a chat template that has them reads the request."""
        roles = [message.role for message in self.messages]
        if "tool" in roles:
            return f"messages[{roles.index('tool')}].role"
        return "tools" if self.offered else None

    @property
    def memory_ids(self) -> tuple[str, ...]:
        """The memories it refers to, each once, in order."""
        ids = (one for message in self.messages for one in message.memory_ids)
        return tuple(dict.fromkeys(ids))

    @property
    def longest_answer(self) -> int | None:
        """Most tokens of the answer, or None for as many as fit."""
        own = self.max_completion_tokens
        return self.max_tokens if own is None else own

    @property
    def noted(self) -> int | None:
        """How many most likely tokens are noted beside each one, or None to note nothing."""
        return self.top_logprobs or 0 if self.logprobs else None

    def written(self, text: str) -> str:
        """The text of an answer without blanks around it."""
        return text.strip()


def no_tools(param: str) -> RequestError:
    """The error for tools, or a message of one, that no chat template writes."""
    return RequestError(
        "Tools are not supported: the model's chat template has none.",
        code="unsupported_parameter",
        param=param,
        fix="Leave them out, and tell the result of a tool in a message of the user.",
    )


class Model(BaseModel):
    """The model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "icae"


class ModelList(BaseModel):
    """A list of one."""

    object: Literal["list"] = "list"
    data: list[Model]


class AnswerMessage(BaseModel):
    """The message that answers."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChoiceLogprobs(BaseModel):
    """Log-probabilities of the tokens of an answer."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """Whole answers."""

    id: str
    created: int
    model: str
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[Choice] = Field(min_length=1)
    usage: Usage
    icae: Figures
