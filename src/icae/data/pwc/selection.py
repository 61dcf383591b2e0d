"""Which pairs are kept of one context, and on which side of the split a context falls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from icae.data.pwc.quality import word_overlap
from icae.data.pwc.records import Context, Pair, Rejection, Written
from icae.data.words import hash_words, uniform

Side = Literal["train", "test"]

SAME_PROMPT = 0.8
"""Share of words in common from which on two prompts ask for the same thing."""


def without_repeats(context: Context, written: Iterable[Written]) -> Written:
    """Join what was written about one context; of prompts that are alike the first is kept.

    Args:
        context: The context.
        written: What was read from its replies and made from its text.

    Returns:
        Pairs and rejections, with the repeats among the latter: ``exact`` for a prompt in the
        same words (case and punctuation do not count), ``near`` for one that shares
        `SAME_PROMPT` of its words with another.
    """
    pairs: list[Pair] = []
    rejections: list[Rejection] = []
    known: list[np.ndarray] = []
    for part in written:
        rejections.extend(part.rejections)
        for pair in part.pairs:
            words = hash_words(pair.prompt)
            reason = _repeats(words, known)
            if reason is None:
                known.append(words)
                pairs.append(pair)
                continue
            rejections.append(
                Rejection(
                    reason=reason,
                    context=context.id,
                    task=pair.task,
                    prompt=pair.prompt,
                    answer=pair.answer,
                )
            )
    return Written(context=context, pairs=tuple(pairs), rejections=tuple(rejections))


def side_of(context: Context, *, test_share: float, seed: int) -> Side:
    """The side of a context: that of the document that it was cut from.

    Args:
        context: The context.
        test_share: Share of the documents on the test side, 0..1.
        seed: Seed of the split.
    """
    key = np.frombuffer(bytes.fromhex(context.document), dtype="<u8").astype(np.uint64)
    number = uniform(key[None], seed=seed, purpose="pwc-test")[0]
    return "test" if number < test_share else "train"


def _repeats(words: np.ndarray, known: Sequence[np.ndarray]) -> str | None:
    if any(np.array_equal(words, other) for other in known):
        return "exact"
    if any(word_overlap(words, other) >= SAME_PROMPT for other in known):
        return "near"
    return None
