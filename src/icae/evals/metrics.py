"""Metrics and their bootstrap intervals. Pure: no model, no files.

Every interval is the 95 % percentile bootstrap over contexts, with a generator seeded by
the caller, so that equal measurements give equal intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icae.errors import InputError, MissingDependencyError

RESAMPLES = 1000
"""Bootstrap resamples behind every interval."""
LEVEL = 0.95
"""Share of resamples inside an interval."""
ORDER = 4
"""Longest n-gram of BLEU."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % bootstrap interval.

    Attributes:
        value: The statistic of all contexts.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


def resample(count: int, *, seed: int) -> NDArray[np.int64]:
    """Which contexts each bootstrap resample holds.

    Args:
        count: Contexts measured, n.
        seed: Seed of the generator.

    Returns:
        Indices [RESAMPLES, n], drawn with replacement.

    Raises:
        InputError: If nothing was measured.
    """
    if count < 1:
        raise InputError("There is nothing to average.", got="no sample", expected="at least one")
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def interval(value: float, statistics_R: NDArray[np.float64]) -> Estimate:
    """A statistic with the interval that its resamples give.

    Args:
        value: The statistic of all contexts.
        statistics_R: The same of each resample.
    """
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(statistics_R, [tail, 100 - tail])
    return Estimate(value=float(value), low=float(low), high=float(high))


def mean_estimate(values: ArrayLike, *, seed: int) -> Estimate:
    """Mean over contexts, with its interval.

    Args:
        values: One value for each context.
        seed: Seed of the bootstrap.
    """
    array = np.asarray(values, dtype=np.float64)
    picks = resample(len(array), seed=seed)
    return interval(float(array.mean()), array[picks].mean(axis=1))


def grouped_mean_estimate(values: ArrayLike, groups: Sequence[int], *, seed: int) -> Estimate:
    """Mean over questions, with the interval over their contexts.

    Questions about one context are drawn together, so that they do not count as
    independent.

    Args:
        values: One value for each question.
        groups: The context of each question.
        seed: Seed of the bootstrap.
    """
    array = np.asarray(values, dtype=np.float64)
    sums_G, counts_G = _group_sums(array, groups)
    picks = resample(len(sums_G), seed=seed)
    means_R = sums_G[picks].sum(axis=1) / counts_G[picks].sum(axis=1)
    return interval(float(array.mean()), means_R)


def grouped_ratio_estimate(
    values: ArrayLike, others: ArrayLike, groups: Sequence[int], *, seed: int
) -> Estimate | None:
    """Ratio of two means over the same questions, paired; see `grouped_mean_estimate`.

    Args:
        values: One value for each question.
        others: One value for each question, for what is divided by.
        groups: The context of each question.
        seed: Seed of the bootstrap.

    Returns:
        The ratio, or None if what is divided by is zero in a resample.
    """
    above_G, _ = _group_sums(np.asarray(values, dtype=np.float64), groups)
    below_G, _ = _group_sums(np.asarray(others, dtype=np.float64), groups)
    picks = resample(len(above_G), seed=seed)
    below_R = below_G[picks].sum(axis=1)
    if not below_G.sum() or not below_R.all():
        return None
    return interval(float(above_G.sum() / below_G.sum()), above_G[picks].sum(axis=1) / below_R)


def _group_sums(
    values: NDArray[np.float64], groups: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of the values of each group."""
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(places, weights=values).astype(np.float64)
    return sums, np.bincount(places).astype(np.float64)


def median_estimate(values: ArrayLike, *, seed: int) -> Estimate:
    """Median over contexts, with its interval.

    Args:
        values: One value for each context.
        seed: Seed of the bootstrap.
    """
    array = np.asarray(values, dtype=np.float64)
    picks = resample(len(array), seed=seed)
    return interval(float(np.median(array)), np.median(array[picks], axis=1))


def ratio_estimate(parts: ArrayLike, totals: ArrayLike, *, seed: int) -> Estimate:
    """Sum of parts over sum of totals, contexts resampled, with its interval.

    Args:
        parts: What counts in each context, for example right words.
        totals: What it is counted of in each context, for example words; not all 0.
        seed: Seed of the bootstrap. A resample whose totals are all 0 is left out.
    """
    part, total = np.asarray(parts, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    picks = resample(len(part), seed=seed)
    sums, bases = part[picks].sum(axis=1), total[picks].sum(axis=1)
    return interval(part.sum() / total.sum(), sums[bases > 0] / bases[bases > 0])


def perplexity_estimate(losses: ArrayLike, *, seed: int) -> Estimate:
    """Perplexity over contexts of equally many scored tokens, with its interval.

    Args:
        losses: Mean token loss of each context (nats).
        seed: Seed of the bootstrap.

    Returns:
        exp of the mean loss. For a ratio of two perplexities on the same tokens pass the
        differences of the losses: exp of their mean is the ratio, its interval is paired.
    """
    mean = mean_estimate(losses, seed=seed)
    return Estimate(value=math.exp(mean.value), low=math.exp(mean.low), high=math.exp(mean.high))


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


@dataclass(frozen=True, kw_only=True)
class BleuCounts:
    """What one text adds to corpus BLEU.

    Attributes:
        matches: Matching n-grams, n = 1..4.
        totals: n-grams written, n = 1..4.
        written_words: Words written.
        true_words: Words of the reference.
    """

    matches: tuple[int, ...]
    totals: tuple[int, ...]
    written_words: int
    true_words: int


def bleu_counts(written: str, true: str) -> BleuCounts:
    """Count the n-grams of one text with sacrebleu's own tokenizer (13a).

    Args:
        written: What the decoder wrote.
        true: The reference.
    """
    score = _scorer().corpus_score([written], [[true]])
    return BleuCounts(
        matches=tuple(int(n) for n in score.counts),
        totals=tuple(int(n) for n in score.totals),
        written_words=int(score.sys_len),
        true_words=int(score.ref_len),
    )


def corpus_bleu(counts: Sequence[BleuCounts]) -> float:
    """Corpus BLEU-4 (0..100) of texts, from their counts; equal to sacrebleu's."""
    return _bleu_of_sums(_table(counts).sum(axis=0))


def corpus_bleu_estimate(counts: Sequence[BleuCounts], *, seed: int) -> Estimate:
    """Corpus BLEU-4 (0..100), with its interval.

    Args:
        counts: Counts of each text.
        seed: Seed of the bootstrap.
    """
    table = _table(counts)
    picks = resample(len(table), seed=seed)
    resampled = [_bleu_of_sums(sums) for sums in table[picks].sum(axis=1)]
    return interval(corpus_bleu(counts), np.array(resampled))


def sentence_bleu(written: str, true: str) -> float:
    """BLEU-4 (0..100) of one text, as sacrebleu scores single sentences.

    Args:
        written: What the decoder wrote.
        true: The reference.
    """
    return float(_sacrebleu().sentence_bleu(written, [true]).score)


def bleu_signature() -> str:
    """How sacrebleu scores, in its own words, with its version."""
    scorer = _scorer()
    scorer.corpus_score(["a"], [["a"]])  # the signature needs a known number of references
    return str(scorer.get_signature())


def _table(counts: Sequence[BleuCounts]) -> NDArray[np.int64]:
    rows = [[*c.matches, *c.totals, c.written_words, c.true_words] for c in counts]
    return np.array(rows, dtype=np.int64)


def _bleu_of_sums(sums: NDArray[np.int64]) -> float:
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


def _scorer() -> Any:
    return _sacrebleu().BLEU(force=True)


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError as error:
        raise missing_eval_extra("sacrebleu") from error
    return sacrebleu


def missing_eval_extra(package: str) -> MissingDependencyError:
    """The error for an evaluation dependency that is not there."""
    return MissingDependencyError(
        f"Evaluation needs {package}.",
        got="it is not installed",
        expected="the [eval] extra",
        fix="pip install 'icae[eval]'",
    )
