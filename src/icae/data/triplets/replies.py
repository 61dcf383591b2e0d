"""Strict reading of a writer's reply.

Nothing is repaired: a reply of another shape than was asked for is rejected as a whole, an
entry of another shape alone. What is rejected goes to the side file with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from icae.data.triplets.prompts import SPECIFIC, Prompt
from icae.data.triplets.quality import find_flaw
from icae.data.triplets.records import Context, Finish, Pair, Reply

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL)
_WHOLE_REPLY = "reply"


def read_pairs(
    reply: Reply, context: Context, *, specific: int, general: Sequence[Prompt]
) -> Iterator[Pair]:
    """Read the pairs out of a reply to `icae.data.triplets.prompts.pairs_messages`.

    A code fence around the whole of it is taken off. Flaws of whole replies: ``truncated``
    (cut off at the token limit), ``not_json``, ``wrong_shape``; of entries: ``wrong_entry``,
    ``surplus`` (more than asked for), ``unasked`` (an unknown or repeated number), ``missing``
    (a numbered prompt without an answer), and those of `icae.data.triplets.quality.find_flaw`.
    """
    text = reply.text.strip()
    body, flaw = _body(text, ["specific"] * bool(specific) + ["general"] * bool(general))
    if reply.finish != "stop" or flaw:
        flaw = flaw if reply.finish == "stop" else "truncated"
        yield Pair(task=_WHOLE_REPLY, prompt="", answer=text, flaw=flaw)
        return
    for index, entry in enumerate(body["specific"] if specific else ()):
        prompt, answer = _text(entry, "prompt"), _text(entry, "answer")
        if not prompt or answer is None:
            yield _wrong_entry(SPECIFIC.name, entry)
        elif index >= specific:
            yield Pair(task=SPECIFIC.name, prompt=prompt, answer=answer, flaw="surplus")
        else:
            yield _checked(context, Prompt(task=SPECIFIC, text=prompt), answer)
    open_prompts = dict(enumerate(general, start=1))
    for entry in body["general"] if general else ():
        number, answer = _number(entry), _text(entry, "answer")
        asked = open_prompts.pop(number, None) if number is not None else None
        if number is None or answer is None:
            yield _wrong_entry(_WHOLE_REPLY, entry)
        elif asked is None:
            yield Pair(task=_WHOLE_REPLY, prompt=str(number), answer=answer, flaw="unasked")
        else:
            yield _checked(context, asked, answer)
    for left in open_prompts.values():
        yield Pair(task=left.task.name, prompt=left.text, answer="", flaw="missing")


def read_answer(reply: Reply, context: Context, prompt: Prompt) -> Iterator[Pair]:
    """Read a reply that is the plain answer to one prompt: one pair."""
    yield _checked(context, prompt, reply.text.strip(), finish=reply.finish)


def _checked(context: Context, prompt: Prompt, answer: str, *, finish: Finish = "stop") -> Pair:
    flaw = find_flaw(context, prompt.text, answer, rules=prompt.task.rules, finish=finish)
    return Pair(task=prompt.task.name, prompt=prompt.text, answer=answer, flaw=flaw)


def _body(text: str, wanted: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """The JSON object of a reply with the lists that it must have, or what is wrong with it."""
    fenced = _FENCE.fullmatch(text)
    try:
        body = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return {}, "not_json"
    if not isinstance(body, dict) or not all(isinstance(body.get(one), list) for one in wanted):
        return {}, "wrong_shape"
    return body, None


def _wrong_entry(task: str, entry: object) -> Pair:
    answer = json.dumps(entry, ensure_ascii=False)
    return Pair(task=task, prompt="", answer=answer, flaw="wrong_entry")


def _text(entry: Any, name: str) -> str | None:
    """Field of an entry that is valid text, without the white space around it."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
        return None  # JSON escapes may spell lone surrogates, which no file takes
    return value.strip()


def _number(entry: Any) -> int | None:
    number = entry.get("number") if isinstance(entry, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None
