"""A text and what was written back of it, aligned word by word.

Which words mean about the same is told by the frozen model's own input embeddings.

Shape legend: W words, D hidden size.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from icae.memory.critical_words import critical_words, overlapping_word
from icae.model.prompts import tokenize

CLASSES = ("form", "like meaning", "number", "name", "code", "other", "omission", "insertion")
"""What can be wrong with a word; see `aligned`."""
TEXT_TYPES = ("prose", "names", "figures", "code")
"""What a text mostly holds; see `text_type`."""
CRITICAL = ("number", "name", "code")
"""Kinds of words that are told apart from plain ones."""

PERCENTILE = 99.5
"""Two words are alike if they are closer than this share (%) of random pairs."""
PAIRS = 2000
"""Random pairs behind the threshold."""
SHORTEST, LONGEST = 4, 24
"""Characters of words that can be alike: shorter ones are mostly grammar, longer ones no words."""
GRAMMAR = frozenset(
    re.findall(
        r"\w+",
        "about also been could from have into more most only should some such than that their them "
        "then there these they this those were what when which will with would",
    )
)
"""Longer English words of grammar, each of which is close to all others."""

_PRICES = {None: 0.0, "form": 0.5, "like meaning": 0.5}
_FAR, _ALONE = 1.0, 0.75
_SHARES = (("code", "code", 0.05), ("figures", "number", 0.10), ("names", "name", 0.15))

Alike = Callable[[Sequence[str], Sequence[str]], NDArray[np.bool_]]
"""(true words, written words) -> whether each pair means about the same, [true, written]."""


class Word(NamedTuple):
    """A word of a text: as it stands there, without punctuation around it, and what it looks like.

    The kind is one of `CRITICAL`, or ``plain``.
    """

    text: str
    core: str
    kind: str


class Pair(NamedTuple):
    """A true word beside what stands in its place: no word for an omission.

    Of an insertion there is no true word. The error is one of `CLASSES`, or None where the words
    are equal.
    """

    true: Word | None
    written: Word | None
    error: str | None


def split_words(text: str) -> list[Word]:
    """The words of a text, with what they look like."""
    marked = critical_words(text)
    words = []
    for match in re.finditer(r"\S+", text):
        found = overlapping_word(marked, match.start(), match.end())
        core = match.group().strip("\"'“”‘’«»„()[]{}<>.,;:!?…*") or match.group()
        words.append(Word(match.group(), core, "plain" if found is None else found.kind))
    return words


def text_type(words: Sequence[Word]) -> str:
    """What a text mostly holds, one of `TEXT_TYPES`.

    Code from 5 % of its words, else figures from 10 %, else names from 15 %, else prose.
    """
    for name, kind, least in _SHARES:
        if words and sum(word.kind == kind for word in words) >= least * len(words):
            return name
    return "prose"


def aligned(true: Sequence[Word], written: Sequence[Word], alike: Alike) -> list[Pair]:
    """The cheapest alignment of two texts, each step with its error.

    Equal words cost nothing, words that differ in case or punctuation or mean about the
    same 0.5, other pairs 1, a word without a partner 0.75.

    Args:
        true: Words of the source.
        written: Words that the decoder wrote.
        alike: Tells which words mean about the same.

    Returns:
        Pairs in order. Where either word of a pair is a number, a name or code, that is the
        error; else ``form`` where only case or punctuation differ, ``like meaning`` or
        ``other``.
    """
    close = alike([w.core for w in true], [w.core for w in written])
    errors = [
        [_error(a, b, bool(close[i, j])) for j, b in enumerate(written)] for i, a in enumerate(true)
    ]
    prices = np.array([[_PRICES.get(error, _FAR) for error in line] for line in errors], np.float64)
    prices = prices.reshape(len(true), len(written))
    cost = _costs(prices)
    pairs: list[Pair] = []
    i, j = len(true), len(written)
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + prices[i - 1, j - 1]:
            i, j = i - 1, j - 1
            pairs.append(Pair(true[i], written[j], errors[i][j]))
        elif i and cost[i, j] == cost[i - 1, j] + _ALONE:
            i -= 1
            pairs.append(Pair(true[i], None, "omission"))
        else:
            j -= 1
            pairs.append(Pair(None, written[j], "insertion"))
    return pairs[::-1]


def _error(true: Word, written: Word, alike: bool) -> str | None:
    if true.text == written.text:
        return None
    if true.core.casefold() == written.core.casefold():
        return "form"
    for kind in CRITICAL:
        if kind in (true.kind, written.kind):
            return kind
    return "like meaning" if alike else "other"


def _costs(prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cost of the cheapest path to every pair of places."""
    rows, columns = prices.shape
    cost = np.zeros((rows + 1, columns + 1))
    cost[:, 0], cost[0, :] = _ALONE * np.arange(rows + 1), _ALONE * np.arange(columns + 1)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            pair = cost[i - 1, j - 1] + prices[i - 1, j - 1]
            cost[i, j] = min(pair, cost[i - 1, j] + _ALONE, cost[i, j - 1] + _ALONE)
    return cost


class EmbeddingLikeness:
    """Words are alike if their embeddings are closer than those of nearly all random pairs.

    A word's embedding is the mean of its tokens' input embeddings, less the mean of the
    vocabulary; closeness is the cosine. It tells near meaning from none, not synonyms from
    antonyms. Words of grammar, and what is too short or too long for a word, are like nothing.

    Args:
        tokenizer: The base model's tokenizer.
        embedding_VD: Input embeddings of the model.
        words: Words of ordinary text that random pairs are drawn from.
        seed: Seed of the pairs.
    """

    def __init__(
        self, tokenizer: Any, embedding_VD: torch.Tensor, words: Sequence[str], *, seed: int
    ) -> None:
        self._width = embedding_VD.shape[1]
        centre_D = embedding_VD.float().mean(dim=0)

        @torch.inference_mode()
        def direction(word: str) -> NDArray[np.float32]:
            ids = torch.from_numpy(tokenize(tokenizer, f" {word.lower()}"))
            vector_D = embedding_VD[ids.to(embedding_VD.device)].float().mean(dim=0) - centre_D
            return np.asarray((vector_D / vector_D.norm().clamp_min(1e-9)).cpu(), np.float32)

        self._direction = functools.cache(direction)
        self.threshold = self._threshold(sorted(set(words)), seed)

    def alike(self, true: Sequence[str], written: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each true word is like each written one, [true, written]."""
        cosines = self._directions(true) @ self._directions(written).T
        able = np.outer([_has_meaning(w) for w in true], [_has_meaning(w) for w in written])
        return np.asarray((cosines > self.threshold) & (able > 0))

    def _threshold(self, words: Sequence[str], seed: int) -> float:
        """The cosine that `PERCENTILE` % of random pairs of different words stay below."""
        if len(words) < 2:
            return 1.0
        rng = np.random.default_rng(seed)
        first = rng.integers(0, len(words), PAIRS)
        second = (first + rng.integers(1, len(words), PAIRS)) % len(words)
        directions_WD = self._directions(words)
        cosines = (directions_WD[first] * directions_WD[second]).sum(axis=1)
        return float(np.percentile(cosines, PERCENTILE))

    def _directions(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [W, D]."""
        return np.array(list(map(self._direction, words)), np.float32).reshape(-1, self._width)


def _has_meaning(word: str) -> bool:
    return SHORTEST <= len(word) <= LONGEST and word.lower() not in GRAMMAR
