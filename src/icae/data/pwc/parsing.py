"""Strict reading of a service's reply: one JSON object of the shape that was asked for.

Nothing is repaired. A reply that is no such object is rejected as a whole; an entry that has
another shape is rejected alone. What is rejected goes to the side file with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from icae.data.pwc.prompts import SPECIFIC, SPECIFIC_RULES, AnswerRules, Prompt
from icae.data.pwc.quality import flaw
from icae.data.pwc.records import Context, Finish, Pair, Rejection, Reply, Written

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL)
_REPLY = "reply"


def read_pairs(
    context: Context, reply: Reply, *, specific: int, general: Sequence[Prompt]
) -> Written:
    """Read the pairs out of a reply to `icae.data.pwc.prompts.pairs_messages`.

    Args:
        context: The context.
        reply: The reply; a code fence around the whole of it is taken off.
        specific: Prompts that the service should make up.
        general: Prompts that it should answer.

    Returns:
        The pairs that may be used. Reasons of whole replies: ``truncated`` (cut off at the
        token limit), ``not_json``, ``wrong_shape``; of entries: ``wrong_entry``, ``surplus``
        (more than asked for), ``unasked`` (an unknown or repeated number), ``missing`` (a
        numbered prompt without an answer), and those of `icae.data.pwc.quality.flaw`.
    """
    reading = _Reading(context, reply)
    body = reading.body(specific=specific, general=bool(general))
    if body is None:
        return reading.done()
    for index, entry in enumerate(body.get("specific", ()) if specific else ()):
        prompt, answer = _texts(entry, "prompt", "answer")
        if prompt is None or answer is None or not prompt:
            reading.reject("wrong_entry", SPECIFIC, "", json.dumps(entry, ensure_ascii=False))
        elif index >= specific:
            reading.reject("surplus", SPECIFIC, prompt, answer)
        else:
            reading.take(SPECIFIC, prompt, answer, rules=SPECIFIC_RULES)
    open_prompts = dict(enumerate(general, start=1))
    for number, answer, entry in _numbered(body.get("general", ()) if general else ()):
        asked = open_prompts.pop(number, None) if number is not None else None
        if answer is None or number is None:
            reading.reject("wrong_entry", _REPLY, "", json.dumps(entry, ensure_ascii=False))
        elif asked is None:
            reading.reject("unasked", _REPLY, str(number), answer)
        else:
            reading.take(asked.task, asked.text, answer, rules=asked.rules)
    for asked in open_prompts.values():
        reading.reject("missing", asked.task, asked.text, "")
    return reading.done()


def read_answer(context: Context, reply: Reply, prompt: Prompt) -> Written:
    """Read a reply that is the answer to one prompt.

    Args:
        context: The context.
        reply: The reply.
        prompt: What was asked.

    Returns:
        The pair, or its rejection with a reason of `icae.data.pwc.quality.flaw`.
    """
    reading = _Reading(context, reply)
    reading.take(
        prompt.task, prompt.text, reply.text.strip(), rules=prompt.rules, finish=reply.finish
    )
    return reading.done()


class _Reading:
    """Pairs and rejections of one reply as they are found."""

    def __init__(self, context: Context, reply: Reply) -> None:
        self._context, self._reply = context, reply
        self._pairs: list[Pair] = []
        self._rejections: list[Rejection] = []

    def done(self) -> Written:
        return Written(
            context=self._context, pairs=tuple(self._pairs), rejections=tuple(self._rejections)
        )

    def reject(self, reason: str, task: str, prompt: str, answer: str) -> None:
        self._rejections.append(
            Rejection(
                reason=reason, context=self._context.id, task=task, prompt=prompt, answer=answer
            )
        )

    def take(
        self, task: str, prompt: str, answer: str, *, rules: AnswerRules, finish: Finish = "stop"
    ) -> None:
        """Take a pair, unless its answer has a flaw."""
        reason = flaw(self._context, prompt, answer, rules=rules, finish=finish)
        if reason is None:
            self._pairs.append(Pair(task=task, prompt=prompt, answer=answer))
        else:
            self.reject(reason, task, prompt, answer)

    def body(self, *, specific: int, general: bool) -> dict[str, Any] | None:
        """The JSON object of the reply, or None if it is rejected as a whole."""
        text = self._reply.text.strip()
        if self._reply.finish != "stop":
            self.reject("truncated", _REPLY, "", text)
            return None
        fenced = _FENCE.fullmatch(text)
        try:
            body = json.loads(fenced[1] if fenced else text)
        except (ValueError, RecursionError):
            self.reject("not_json", _REPLY, "", text)
            return None
        wanted = ["specific"] * bool(specific) + ["general"] * general
        if not isinstance(body, dict) or any(
            not isinstance(body.get(name), list) for name in wanted
        ):
            self.reject("wrong_shape", _REPLY, "", text)
            return None
        return body


def _texts(entry: Any, *names: str) -> tuple[str | None, ...]:
    """Fields of an entry that are valid text, without the white space around them."""
    if not isinstance(entry, dict):
        return (None,) * len(names)
    values = (entry.get(name) for name in names)
    return tuple(
        value.strip() if isinstance(value, str) and _is_unicode(value) else None for value in values
    )


def _is_unicode(text: str) -> bool:
    """Whether a text can be written to a file: JSON escapes may spell lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _numbered(entries: Sequence[Any]) -> Iterator[tuple[int | None, str | None, Any]]:
    for entry in entries:
        (answer,) = _texts(entry, "answer")
        number = entry.get("number") if isinstance(entry, dict) else None
        whole = isinstance(number, int) and not isinstance(number, bool)
        yield number if whole else None, answer, entry
