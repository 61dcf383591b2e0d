"""Which words mean about the same, by the frozen model's own input embeddings.

Shape legend: W words, D hidden size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from icae.model import tokenize

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
        self.tokenizer = tokenizer
        self.embedding_VD = embedding_VD
        self.centre_D = embedding_VD.float().mean(dim=0)
        self._known: dict[str, NDArray[np.float32]] = {}
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
        width = self.embedding_VD.shape[1]
        return np.array([self._direction(w) for w in words], np.float32).reshape(-1, width)

    @torch.inference_mode()
    def _direction(self, word: str) -> NDArray[np.float32]:
        if word not in self._known:
            ids = torch.from_numpy(tokenize(self.tokenizer, f" {word.lower()}"))
            vector_D = self.embedding_VD[ids.to(self.embedding_VD.device)].float().mean(dim=0)
            centred_D = vector_D - self.centre_D
            unit_D = centred_D / centred_D.norm().clamp_min(1e-9)
            self._known[word] = unit_D.cpu().numpy()
        return self._known[word]


def _has_meaning(word: str) -> bool:
    return SHORTEST <= len(word) <= LONGEST and word.lower() not in GRAMMAR
