"""A request for an answer: JSON in, checked values out; pure.

Messages are those of the OpenAI chat API. A content part ``{"type": "memory", "id": ...}``
stands for a memory; the decoder reads all memories of a conversation before its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from icae.errors import RequestError
from icae.serve.shelf import check_memory_id

Role = Literal["system", "user", "assistant"]

MAX_MESSAGES = 1000
"""Most messages of a conversation."""

MAX_MEMORIES = 64
"""Most memories that a conversation refers to."""

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "stop": (None, []),
    "logprobs": (None, False),
    "tools": (None, []),
    "functions": (None, []),
    "audio": (None,),
    "response_format": (None, {"type": "text"}),
}
"""Settings that would change the answer in a way that is not offered, with the values that
do not. Settings of sampling are taken and have no effect: decoding is greedy."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: Who said it.
        text: What was said.
    """

    role: Role
    text: str


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """What a client wants to have answered.

    Attributes:
        messages: The conversation; the last message is the user's.
        memory_ids: Memories it refers to, each once, in order.
        max_tokens: Most tokens of the answer, or None for as many as fit.
        stream: Whether the answer is sent as it is written.
        include_usage: Whether a stream ends with the number of tokens.
        auto_compress: Most tokens of a message that is read as text; 0 for no bound, None
            for the server's setting.
    """

    messages: tuple[Message, ...]
    memory_ids: tuple[str, ...]
    max_tokens: int | None
    stream: bool
    include_usage: bool
    auto_compress: int | None


def parse_chat(raw: Any, *, model: str) -> ChatRequest:
    """Check a request.

    Args:
        raw: Parsed JSON.
        model: Name of the model that is served.

    Raises:
        RequestError: If it is not one that can be answered.
    """
    body = mapping(raw, "the body")
    if body.get("model") != model:
        raise RequestError(
            "There is no such model.",
            status=404,
            code="model_not_found",
            param="model",
            got=repr(body.get("model"))[:80],
            expected=model,
        )
    for name, harmless in _NOTHING.items():
        if body.get(name) not in harmless:
            raise RequestError(
                f"{name} is not supported.", code="unsupported_parameter", param=name
            )
    messages, memory_ids = _messages(body.get("messages"))
    options = body.get("stream_options")
    return ChatRequest(
        messages=messages,
        memory_ids=memory_ids,
        max_tokens=_first_whole(body, ("max_completion_tokens", "max_tokens"), lowest=1),
        stream=_flag(body, "stream"),
        include_usage=_flag(mapping(options, "stream_options"), "include_usage")
        if options is not None
        else False,
        auto_compress=_first_whole(body, ("auto_compress",), lowest=0),
    )


def conversation(messages: Sequence[Message]) -> tuple[str, list[tuple[str, str]]]:
    """The question that is to be answered, and the turns before it.

    What several messages say before an answer is one question, apart by blank lines; what
    the system says stands before what the user says.

    Args:
        messages: As in `ChatRequest`.

    Returns:
        The question, and earlier (question, answer) turns.

    Raises:
        RequestError: If an answer comes before anything was said.
    """
    turns: list[tuple[str, str]] = []
    said: list[str] = []
    for message in messages:
        if message.role != "assistant":
            said.append(message.text)
        elif said:
            turns.append((_joined(said), message.text))
            said = []
        elif turns:
            turns[-1] = (turns[-1][0], _joined([turns[-1][1], message.text]))
        else:
            raise RequestError(
                "The conversation starts with an answer.",
                param="messages",
                expected="a message of the system or the user first",
            )
    return _joined(said), turns


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """Return a value that is a JSON object.

    Raises:
        RequestError: If it is not.
    """
    if not isinstance(value, dict):
        raise RequestError(
            f"{what[:1].upper()}{what[1:]} is no JSON object.",
            got=type(value).__name__,
            expected="an object",
        )
    return value


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(text for text in texts if text)


def _messages(raw: Any) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    if not isinstance(raw, list) or not 1 <= len(raw) <= MAX_MESSAGES:
        raise RequestError(
            "There are no messages.",
            param="messages",
            expected=f"a list of 1..{MAX_MESSAGES} messages",
        )
    memory_ids: dict[str, None] = {}
    messages = [
        _message(item, f"messages[{number}]", memory_ids) for number, item in enumerate(raw)
    ]
    if messages[-1].role != "user":
        raise RequestError("The last message is not the user's.", param="messages")
    if len(memory_ids) > MAX_MEMORIES:
        raise RequestError(
            "The conversation refers to too many memories.",
            param="messages",
            got=str(len(memory_ids)),
            expected=f"at most {MAX_MEMORIES}",
        )
    return tuple(messages), tuple(memory_ids)


def _message(raw: Any, where: str, memory_ids: dict[str, None]) -> Message:
    item = mapping(raw, where)
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(
            "The role of a message is not known.",
            param=f"{where}.role",
            got=repr(role)[:80],
            expected=", ".join(_ROLES),
        )
    content = item.get("content")
    if isinstance(content, str):
        return Message(role=_ROLES[role], text=content)
    if not isinstance(content, list):
        raise RequestError(
            "A message has no content.",
            param=f"{where}.content",
            got=type(content).__name__,
            expected="text, or a list of parts",
        )
    texts = [
        _part(part, f"{where}.content[{number}]", role, memory_ids)
        for number, part in enumerate(content)
    ]
    return Message(role=_ROLES[role], text=_joined(texts))


def _part(raw: Any, where: str, role: str, memory_ids: dict[str, None]) -> str:
    """Text of a content part; the id of a memory is noted."""
    part = mapping(raw, where)
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "memory" and role != "assistant":
        memory_id = part.get("id")
        if not isinstance(memory_id, str):
            raise RequestError("A memory has no id.", param=f"{where}.id")
        memory_ids[check_memory_id(memory_id)] = None
        return ""
    raise RequestError(
        "A part of a message cannot be read.",
        param=where,
        got=repr(kind)[:80],
        expected='{"type": "text", "text": ...}, or in a message of the user or the system '
        '{"type": "memory", "id": ...}',
    )


def _first_whole(body: Mapping[str, Any], names: Sequence[str], *, lowest: int) -> int | None:
    """The first of these fields that is there: a whole number."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise RequestError(
                f"{name} is out of range.",
                param=name,
                got=repr(value)[:80],
                expected=f"a whole number from {lowest}",
            )
        return value
    return None


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise RequestError(
        f"{name} is out of range.", param=name, got=repr(value)[:80], expected="true or false"
    )
