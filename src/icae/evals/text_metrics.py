"""What was written against what should have been: BLEU, ROUGE, exact match, F1.

Exact match and F1 follow the official SQuAD evaluation; BLEU is sacrebleu's, ROUGE that of the
`rouge-score` package, without stemming. Where there are several references, the best one
counts. Pure: no model, no files.
"""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icae.config.extras import import_extra
from icae.evals.bootstrap import Figure, bootstrap

ORDER = 4
"""Longest n-gram of BLEU."""
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


def prefix_share(written: ArrayLike, true: ArrayLike) -> float:
    """Share of tokens before the first error (0..1).

    Args:
        written: Token ids that the decoder wrote.
        true: The true token ids, at least one.

    Returns:
        1.0 if all of `true` was written; missing tokens count as errors.
    """
    true_T, written_T = np.asarray(true), np.asarray(written)
    size = min(len(true_T), len(written_T))
    wrong = np.flatnonzero(true_T[:size] != written_T[:size])
    return float((wrong[0] if len(wrong) else size) / len(true_T))


def bleu_figure(pairs: Sequence[tuple[str, str]], *, seed: int) -> Figure:
    """Corpus BLEU-4 (0..100), equal to sacrebleu's, with its interval over texts.

    Args:
        pairs: (what was written, the reference) of each text.
        seed: Seed of the bootstrap.
    """
    scorer = _sacrebleu().BLEU(force=True)
    scores = [scorer.corpus_score([written], [[true]]) for written, true in pairs]
    counts = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], np.int64)

    def corpus(picks: NDArray[np.int64]) -> NDArray[np.float64]:
        sums = counts[picks].sum(axis=-2)
        return np.apply_along_axis(_bleu_of_sums, -1, sums)

    return bootstrap(corpus, len(pairs), seed=seed)


def _bleu_of_sums(sums: NDArray[np.int64]) -> float:
    """BLEU of n-gram matches and totals (n = 1..4), words written and words of the reference."""
    score = _sacrebleu().BLEU.compute_bleu(
        correct=sums[:ORDER].tolist(),
        total=sums[ORDER : 2 * ORDER].tolist(),
        sys_len=int(sums[-2]),
        ref_len=int(sums[-1]),
        smooth_method="exp",
        effective_order=False,
        max_ngram_order=ORDER,
    )
    return float(score.score)


def sentence_bleu(written: str, true: str) -> float:
    """BLEU-4 (0..100) of one text, as sacrebleu scores single sentences."""
    return float(_sacrebleu().sentence_bleu(written, [true]).score)


def bleu_signature() -> str:
    """How sacrebleu scores, in its own words, with its version.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    scorer = _sacrebleu().BLEU(force=True)
    scorer.corpus_score(["a"], [["a"]])  # the signature needs a known number of references
    return str(scorer.get_signature())


def _sacrebleu() -> Any:
    return import_extra("sacrebleu", purpose="Evaluation", extra="eval")


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
    return 2 * common / (len(written) + len(true))


def rouge_f1(written: str, references: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, -2 and -L F1 (0..1), each against the reference that suits it best.

    Raises:
        MissingDependencyError: If `rouge-score` is not installed.
    """
    scores = [_rouge().score(true, written) for true in references]
    return {name: max(float(score[name].fmeasure) for score in scores) for name in ROUGE_TYPES}


@functools.cache
def _rouge() -> Any:
    scoring = import_extra("rouge_score.rouge_scorer", purpose="Evaluation", extra="eval")
    tokens = import_extra("rouge_score.tokenizers", purpose="Evaluation", extra="eval")
    # Its own default tokenizer, named: else it configures the root logger to say so.
    tokenizer = tokens.DefaultTokenizer(use_stemmer=False)
    return scoring.RougeScorer(list(ROUGE_TYPES), tokenizer=tokenizer)


def rouge_signature() -> str:
    """Which ROUGE is measured, with its version.

    Raises:
        MissingDependencyError: If `rouge-score` is not installed.
    """
    from importlib.metadata import version

    _rouge()
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
