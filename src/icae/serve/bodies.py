"""The JSON that the server answers with; pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from icae.errors import (
    ConfigError,
    IcaeError,
    IncompatibleMemoryError,
    InputError,
    RequestError,
)
from icae.serve.chat_work import Answered
from icae.serve.document_work import DocumentWork
from icae.serve.shelf import Shelved

Body = dict[str, Any]

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


def refusal(error: Exception) -> RequestError:
    """What a client is told about an error: nothing about the inside of the server.

    Args:
        error: Any error.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, IncompatibleMemoryError):
        return RequestError(
            error.message,
            status=409,
            code="incompatible_memory",
            got=error.got,
            expected=error.expected,
            fix=error.fix,
        )
    if isinstance(error, InputError | ConfigError):
        return RequestError(error.message, got=error.got, expected=error.expected, fix=error.fix)
    if isinstance(error, IcaeError):
        return RequestError(
            "The server cannot do that now.", status=503, code="unavailable", retry_after_s=5
        )
    return RequestError("The server made a mistake.", status=500, code="internal_error")


def error_body(error: RequestError) -> Body:
    """An error as OpenAI clients read it."""
    notes = (("got", error.got), ("expected", error.expected), ("fix", error.fix))
    details = "; ".join(f"{label}: {text}" for label, text in notes if text is not None)
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {
        "error": {
            "message": f"{error.message} ({details})" if details else error.message,
            "type": _TYPES.get(error.status, kind),
            "param": error.param,
            "code": error.code,
        }
    }


def model_body(name: str, *, created: int) -> Body:
    """A model, as in the list of models."""
    return {"id": name, "object": "model", "created": created, "owned_by": "icae"}


def usage_body(answered: Answered) -> Body:
    """Decoder positions read and tokens written."""
    read, written = answered.answer.prompt_tokens, answered.answer.answer_tokens
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def figures_body(answered: Answered) -> Body:
    """What an answer cost, beyond the fields of OpenAI's API."""
    answer = answered.answer
    return {
        "memory_positions": answer.memory_positions,
        "compressed_tokens": answered.compressed_tokens,
        "kv_bytes": answered.kv_bytes,
        "seconds": round(answer.seconds, 4),
        "first_token_seconds": round(answer.first_token_seconds, 4),
        "runtime": answer.runtime,
    }


def completion_body(answered: Answered, head: Mapping[str, Any]) -> Body:
    """A whole answer.

    Args:
        answered: The answer.
        head: ``id``, ``created`` and ``model``.
    """
    return {
        **head,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answered.answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason(answered),
            }
        ],
        "usage": usage_body(answered),
        "icae": figures_body(answered),
    }


def chunk_body(
    delta: Mapping[str, Any], head: Mapping[str, Any], finish: str | None = None
) -> Body:
    """A piece of a streamed answer.

    Args:
        delta: What is new in the message.
        head: ``id``, ``created`` and ``model``.
        finish: Why it ended, in the last piece.
    """
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}


def finish_reason(answered: Answered) -> str:
    """``stop`` if the model ended the answer, ``length`` if the limit did."""
    return "stop" if answered.answer.finished else "length"


def ready_memory_body(shelved: Shelved) -> Body:
    """A memory that can be asked."""
    record = shelved.record
    return {
        "id": shelved.id,
        "object": "memory",
        "name": shelved.title,
        "created_at": int(datetime.fromisoformat(record.added_at).timestamp()),
        "status": "ready",
        "tokens": record.tokens,
        "positions": record.positions,
        "ratio": record.tokens / record.positions,
        "fidelity": record.fidelity,
        "bytes": record.bytes,
    }


def work_body(work: DocumentWork) -> Body:
    """A memory that is being made or changed, or could not be."""
    done, total = work.progress
    error = work.future.exception() if work.future.done() else None
    body: Body = {
        "id": work.id,
        "object": "memory",
        "name": work.title,
        "status": "in_progress" if error is None else "failed",
        "progress": {"spans_done": done, "spans": total},
    }
    if isinstance(error, Exception):
        body |= error_body(refusal(error))
    return body
