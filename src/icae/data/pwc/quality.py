"""Which answers are good enough to train on; one reason for each that is not."""

from __future__ import annotations

import re

import numpy as np

from icae.data.pwc.prompts import AnswerRules
from icae.data.pwc.records import Context, Finish
from icae.data.pwc.sentences import ends_like_a_sentence, sentences
from icae.data.words import hash_words, ngram_hashes

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
    r"enough information)|(?:no|without) (?:text|context) (?:was|is|has been) (?:given|provided))",
    re.IGNORECASE,
)
_LEFTOVER = re.compile(r"<\|[a-z_]+\|>|</?text>|\[(?:your|insert)\b|```", re.IGNORECASE)


def flaw(
    context: Context, prompt: str, answer: str, *, rules: AnswerRules, finish: Finish
) -> str | None:
    """The first thing that is wrong with an answer, or None.

    Args:
        context: The text that it is about.
        prompt: What was asked.
        answer: The answer, without white space around it.
        rules: What answers to this task must be like.
        finish: Why the writer stopped.

    Returns:
        ``empty``, ``unterminated`` (cut off, or no end of a sentence where the task asks for
        one), ``refusal``, ``leftover`` (special tokens, placeholders), ``short``, ``long``,
        ``repeating``, ``echo`` (the prompt said again) or ``copied`` (from the text, beyond
        the share that the task allows).
    """
    words = hash_words(answer)
    if not len(words):
        return "empty"
    if finish != "stop" or (rules.ending == "sentence" and not ends_like_a_sentence(answer)):
        return "unterminated"
    if _REFUSAL.search(answer):
        return "refusal"
    if _LEFTOVER.search(answer):
        return "leftover"
    if len(words) < rules.min_words:
        return "short"
    if len(words) > rules.max_words:
        return "long"
    if repeated_share(answer) > MOST_REPEATED:
        return "repeating"
    if is_echo(prompt, answer):
        return "echo"
    if copied_share(context.text, answer) > rules.most_copied:
        return "copied"
    return None


def repeated_share(text: str) -> float:
    """How much of a text says again what it said before.

    Returns:
        The larger of the share of four-word runs and the share of sentences that occurred
        before, 0..1.
    """
    runs = ngram_hashes(hash_words(text), _REPEAT_RUN)
    by_runs = 1 - len(np.unique(runs)) / len(runs) if len(runs) else 0.0
    said = [" ".join(one.lower().split()) for one in sentences(text)]
    by_sentences = 1 - len(set(said)) / len(said) if said else 0.0
    return max(by_runs, by_sentences)


def copied_share(text: str, answer: str) -> float:
    """Share of an answer's words that stand in runs of `COPY_RUN` words of the text, 0..1."""
    words = hash_words(answer)
    runs = ngram_hashes(words, COPY_RUN)
    hits = np.flatnonzero(np.isin(runs, ngram_hashes(hash_words(text), COPY_RUN)))
    if not len(hits):
        return 0.0
    covered = np.unique(hits[:, None] + np.arange(COPY_RUN))
    return len(covered) / len(words)


def is_echo(prompt: str, answer: str) -> bool:
    """Whether an answer is its prompt said again, alone or at the start."""
    asked, said = hash_words(prompt), hash_words(answer)
    if len(asked) >= _LEAST_FOR_ECHO and np.array_equal(said[: len(asked)], asked):
        return True
    return len(said) >= _LEAST_FOR_ECHO and word_overlap(asked, said) >= ECHO


def word_overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Jaccard similarity of two sets of words, 0..1.

    Args:
        one: uint64 ``[W]``, hashes of the words.
        other: uint64 ``[V]``.
    """
    union = len(np.union1d(one, other))
    return len(np.intersect1d(one, other)) / union if union else 1.0
