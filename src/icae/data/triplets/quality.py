"""Which answers are good enough to train on; one reason for each that is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from icae.data.triplets.records import Context, Finish
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
_LEAST_ITEMS = 4


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """What an answer to a task must be like.

    Attributes:
        min_words: Fewest words.
        max_words: Most words.
        most_copied: Largest share of its words that stand in runs copied from the text, 0..1.
        most_foreign: Largest share of its names and numbers that the text lacks, 0..1.
        ending: ``sentence``: it must end like one.
    """

    min_words: int = 1
    max_words: int = 400
    most_copied: float = 1.0
    most_foreign: float = 1.0
    ending: Literal["sentence", "anywhere"] = "anywhere"


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
        ("echo", _is_echo(prompt, answer)),
        ("copied", _copied_share(context.text, answer) > rules.most_copied),
        ("foreign", _foreign_share(context.text, answer) > rules.most_foreign),
    )
    return next((reason for reason, wrong in found if wrong), None)


def _repeated_share(text: str) -> float:
    """How much of a text says again what it said before, 0..1.

    The largest of the shares of four-word runs, of sentences and of the items of a list (by
    commas or lines) that occurred before.
    """
    runs = ngram_hashes(hash_words(text), _REPEAT_RUN)
    by_runs = 1 - len(np.unique(runs)) / len(runs) if len(runs) else 0.0
    items = [one.strip(" -*•.\t").lower() for one in re.split(r"[,\n]", text)]
    items = [one for one in items if one]
    return max(
        by_runs,
        _said_before([" ".join(one.lower().split()) for one in sentences(text)]),
        _said_before(items) if len(items) >= _LEAST_ITEMS else 0.0,
    )


def _said_before(parts: Sequence[str]) -> float:
    return 1 - len(set(parts)) / len(parts) if parts else 0.0


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


def _copied_share(text: str, answer: str) -> float:
    """Share of an answer's words that stand in runs of `COPY_RUN` words of the text, 0..1."""
    words = hash_words(answer)
    runs = ngram_hashes(words, COPY_RUN)
    hits = np.flatnonzero(np.isin(runs, ngram_hashes(hash_words(text), COPY_RUN)))
    if not len(hits):
        return 0.0
    covered = np.unique(hits[:, None] + np.arange(COPY_RUN))
    return len(covered) / len(words)


def _is_echo(prompt: str, answer: str) -> bool:
    """Whether an answer is its prompt said again, alone or at the start."""
    asked, said = hash_words(prompt), hash_words(answer)
    if len(asked) >= _LEAST_FOR_ECHO and np.array_equal(said[: len(asked)], asked):
        return True
    return len(said) >= _LEAST_FOR_ECHO and word_overlap(asked, said) >= ECHO


def word_overlap(one: Hashes, other: Hashes) -> float:
    """Jaccard similarity of two sets of hashed words, 0..1."""
    union = len(np.union1d(one, other))
    return len(np.intersect1d(one, other)) / union if union else 1.0
