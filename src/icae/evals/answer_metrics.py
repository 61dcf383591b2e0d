"""Metrics of written answers against reference answers. Pure: no model, no files.

Exact match and F1 follow the official SQuAD evaluation; ROUGE is that of the `rouge-score`
package, without stemming. Where there are several references, the best one counts.
"""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from icae.evals.metrics import missing_eval_extra

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
"""The ROUGE figures, by the names of `rouge-score`."""

LONGEST_PHRASE = 12
"""Longest repeated phrase that is looked for, in words."""
REPEATS = 3
"""Times in a row that a phrase must stand to count as repeated."""
REPEATED_WORDS = 6
"""Words that the repeats must cover in all."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORDS = re.compile(r"\w+|[^\w\s]")


def normalised(answer: str) -> str:
    """An answer as SQuAD compares it: lower case, no punctuation, no articles, single spaces."""
    bare = answer.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(written: str, references: Sequence[str]) -> float:
    """1.0 if the answer equals a reference after normalisation, else 0.0."""
    return float(any(normalised(written) == normalised(true) for true in references))


def token_f1(written: str, references: Sequence[str]) -> float:
    """F1 (0..1) of the words of an answer, against the reference that suits it best."""
    return max(_f1(normalised(written).split(), normalised(true).split()) for true in references)


def _f1(written: Sequence[str], true: Sequence[str]) -> float:
    if not written or not true:
        return float(written == true)
    common = sum((Counter(written) & Counter(true)).values())
    if not common:
        return 0.0
    precision, recall = common / len(written), common / len(true)
    return 2 * precision * recall / (precision + recall)


def rouge_f1(written: str, references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L F1 (0..1), each against the reference that suits it best.

    Raises:
        MissingDependencyError: If `rouge-score` is not installed.
    """
    scores = [_scorer().score(true, written) for true in references]
    return {name: max(float(score[name].fmeasure) for score in scores) for name in ROUGE_TYPES}


@functools.cache
def _scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.tokenizers import DefaultTokenizer
    except ImportError as error:
        raise missing_eval_extra("rouge-score") from error
    # Its own default tokenizer, named: else it configures the root logger to say so.
    return RougeScorer(list(ROUGE_TYPES), tokenizer=DefaultTokenizer(use_stemmer=False))


def rouge_signature() -> str:
    """Which ROUGE is measured, with its version.

    Raises:
        MissingDependencyError: If `rouge-score` is not installed.
    """
    from importlib.metadata import version

    _scorer()
    return f"rouge-score {version('rouge-score')}, F1, no stemming, best reference"


def is_empty(written: str) -> bool:
    """Whether an answer says nothing: no letter and no digit in it."""
    return not any(character.isalnum() for character in written)


def is_repeating(written: str) -> bool:
    """Whether an answer is stuck: it says a phrase of 1 to 12 words over and over.

    A phrase counts that stands three times or more in a row and covers six words or more
    in doing so; punctuation marks count as words.
    """
    words = _WORDS.findall(written.lower())
    for size in range(1, LONGEST_PHRASE + 1):
        needed = max(REPEATS * size, REPEATED_WORDS) - size
        run = 0
        for word, earlier in zip(words[size:], words, strict=False):
            run = run + 1 if word == earlier else 0
            if run >= needed:
                return True
    return False
