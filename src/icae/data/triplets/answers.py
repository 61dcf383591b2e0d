"""What of a writer's reply is good enough to train on, and what is wrong with the rest.

Nothing is repaired: a reply of another shape than was asked for is rejected as a whole, an
entry of another shape alone. What is rejected goes to the side file with its reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from icae.data.triplets.prompts import SPECIFIC, AnswerRules, Prompt
from icae.data.triplets.records import Context, Finish, Pair, Reply
from icae.data.triplets.sentences import ends_like_a_sentence, sentences
from icae.data.words import Hashes, hash_words, ngram_hashes

COPY_RUN = 8
"""A run of so many words that also stands in the text counts as copied."""
MOST_REPEATED = 0.2
"""Largest share of four-word runs that may have occurred before in the same answer."""
ECHO = 0.8
"""Share of words in common from which on an answer is its prompt said again."""

_REPEAT_RUN = 4
_LEAST_FOR_ECHO = 4
_LEAST_ITEMS = 4
_WHOLE_REPLY = "reply"
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL)
_REFUSAL = re.compile(
    r"\b(?:as an ai\b|as a language model|i(?:'m| am) sorry|i apologi[sz]e|i can(?:'|no)t (?:help|"
    r"assist|provide|answer)|i(?:'m| am) (?:not able|unable) to|i do(?:n't| not) have (?:access|"
    r"enough information)|(?:no|without) (?:text|context) (?:was|is|has been) (?:given|provided)|"
    r"text (?:does(?:n't| not)|did(?:n't| not)) (?:\w+ )?(?:provide|specify|mention|say|state))",
    re.IGNORECASE,
)
_LEFTOVER = re.compile(r"<\|[a-z_]+\|>|</?text>|\[(?:your|insert)\b|```", re.IGNORECASE)
_PREAMBLE = re.compile(
    r"(?:sure|certainly|of course)[,!.]|here(?:'s| is| are)\b|i'(?:m|d|ll)\b|"
    r"[^.!?\n]{0,30}\btext (?:is|reads|says|goes|contains|includes)[^.!?\n]{0,40}:|"
    r"[^.!?\n]{0,60}:\s*\n",
    re.IGNORECASE,
)
_NAME_OR_NUMBER = re.compile(r"(?<=[a-z,;] )[A-Z]\w*[a-z]\w*|(?<!\w)\d+(?:[.,]\d+)*")
_LIST_MARK = re.compile(r"^\s*\d{1,2}[.)] ", re.MULTILINE)


def read_pairs(
    reply: Reply, context: Context, *, specific: int, general: Sequence[Prompt]
) -> Iterator[Pair]:
    """Read the pairs out of a reply to `icae.data.triplets.requests.pairs_request`.

    A code fence around the whole of it is taken off. Flaws of whole replies: ``truncated``
    (cut off at the token limit), ``not_json``, ``wrong_shape``; of entries: ``wrong_entry``,
    ``surplus`` (more than asked for), ``unasked`` (an unknown or repeated number), ``missing``
    (a numbered prompt without an answer), and those of `find_flaw`.
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
        number = entry.get("number") if isinstance(entry, dict) else None
        asked = open_prompts.pop(number, None) if type(number) is int else None
        answer = _text(entry, "answer")
        if type(number) is not int or answer is None:
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


def find_flaw(
    context: Context, prompt: str, answer: str, *, rules: AnswerRules, finish: Finish
) -> str | None:
    """The first thing that is wrong with an answer, or None.

    ``empty``, ``unterminated`` (cut off, or no end of a sentence where the task asks for one),
    ``refusal``, ``leftover`` (special tokens, placeholders), ``preamble`` (talk before the answer),
    ``short``, ``long``, ``repeating``, ``echo`` (the prompt said again), ``copied`` or ``foreign``
    (copied words, or names and numbers that the text lacks, beyond the share that the task allows).
    """
    words = hash_words(answer)
    if not len(words):
        return "empty"
    if finish != "stop" or (rules.ending == "sentence" and not ends_like_a_sentence(answer)):
        return "unterminated"
    found = (
        ("refusal", _REFUSAL.search(answer) is not None),
        ("leftover", _LEFTOVER.search(answer) is not None),
        ("preamble", _PREAMBLE.match(answer) is not None),
        ("short", len(words) < rules.min_words),
        ("long", len(words) > rules.max_words),
        ("repeating", _repeated_share(answer) > MOST_REPEATED),
        ("echo", _is_echo(hash_words(prompt), words)),
        ("copied", _copied_share(context.text, words) > rules.most_copied),
        ("foreign", _foreign_share(context.text, answer) > rules.most_foreign),
    )
    return next((reason for reason, wrong in found if wrong), None)


def _repeated_share(text: str) -> float:
    """How much of a text says again what it said before, 0..1.

    The largest of the shares of four-word runs, of sentences and of the items of a list (by
    commas or lines) that occurred before.
    """
    runs = ngram_hashes(hash_words(text), _REPEAT_RUN).tolist()
    whole = [" ".join(one.lower().split()) for one in sentences(text)]
    items = [one.strip(" -*•.\t").lower() for one in re.split(r"[,\n]", text)]
    items = [one for one in items if one]
    said = [runs, whole, items if len(items) >= _LEAST_ITEMS else []]
    return max(1 - len(set(parts)) / len(parts) if parts else 0.0 for parts in said)


def _foreign_share(text: str, answer: str) -> float:
    """Share of the names and numbers of an answer that the text lacks, 0..1.

    Names are capitalised words inside a sentence; the numbers of a list do not count.
    """
    found = _NAME_OR_NUMBER.findall(_LIST_MARK.sub("", answer))
    if not found:
        return 0.0
    known = set(re.findall(r"\w+", text.lower()))
    foreign = [one for one in found if not set(re.findall(r"\w+", one.lower())) <= known]
    return len(foreign) / len(found)


def _copied_share(text: str, answer: Hashes) -> float:
    """Share of an answer's words that stand in runs of `COPY_RUN` words of the text, 0..1."""
    runs = ngram_hashes(answer, COPY_RUN)
    hits = np.flatnonzero(np.isin(runs, ngram_hashes(hash_words(text), COPY_RUN)))
    return len(np.unique(hits[:, None] + np.arange(COPY_RUN))) / len(answer)


def _is_echo(asked: Hashes, said: Hashes) -> bool:
    """Whether an answer is its prompt said again, alone or at the start."""
    if len(asked) >= _LEAST_FOR_ECHO and np.array_equal(said[: len(asked)], asked):
        return True
    return len(said) >= _LEAST_FOR_ECHO and word_overlap(asked, said) >= ECHO


def word_overlap(one: Hashes, other: Hashes) -> float:
    """Jaccard similarity of two sets of hashed words, 0..1."""
    union = len(np.union1d(one, other))
    return len(np.intersect1d(one, other)) / union if union else 1.0
