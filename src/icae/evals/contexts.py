"""Drawing held-out contexts: windows of documents, by seed, without overlaps if possible."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icae.config.types import TokenIds
from icae.data.corpus import read_corpus
from icae.errors import InputError
from icae.model.prompts import tokenize

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of one document: the longest context and what follows it.

    Attributes:
        document: Index of the document among all that were read.
        start: First token in the document.
        ids: Token ids, context and following tokens together.
    """

    document: int
    start: int
    ids: TokenIds

    def context(self, length: int, *, after: int = 0) -> TokenIds:
        """The last `length` tokens before the last `after` tokens.

        So contexts of every length end at the same place and share what follows.
        """
        end = len(self.ids) - after
        return self.ids[end - length : end]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The windows of one experiment.

    Attributes:
        windows: In random order; a larger draw by the same seed starts with the same ones.
        documents: How many documents were long enough.
        overlapping: How many windows may overlap others, for want of text.
    """

    windows: tuple[Window, ...]
    documents: int
    overlapping: int


def read_documents(paths: Sequence[Path], tokenizer: Any) -> list[TokenIds]:
    """Token ids of every document of a corpus.

    Raises:
        InputError: If a path cannot be read or holds no text.
    """
    documents = [tokenize(tokenizer, document.text) for document in read_corpus(paths)]
    if not documents:
        raise InputError(
            "The texts hold no document.",
            got=", ".join(str(path) for path in paths),
            expected="at least one document that is not blank",
        )
    return documents


def draw_windows(documents: Sequence[TokenIds], *, size: int, samples: int, seed: int) -> Drawn:
    """Draw windows uniformly over the text of documents that are long enough.

    Every document is tiled with windows from a random start, and the tiles are drawn
    without replacement. Where there are too few, windows at other starts are added.

    Args:
        documents: Token ids of each document.
        size: Tokens in a window.
        samples: Windows wanted.
        seed: Seed of the draw.

    Raises:
        InputError: If the documents do not hold so many different windows.
    """
    rng = np.random.default_rng([seed, size])
    room = {i: len(ids) - size + 1 for i, ids in enumerate(documents) if len(ids) >= size}
    if sum(room.values()) < samples:
        longest = max((len(ids) for ids in documents), default=0)
        raise InputError(
            "The texts are too short for the contexts wanted.",
            got=f"{len(documents)} documents, the longest of {longest} tokens",
            expected=f"{samples} different windows of {size} tokens, each in one document",
            fix="Give more or longer texts, or lower --lengths, --tokens or --samples.",
        )
    tiles: list[tuple[int, int]] = []
    for i in room:
        count, slack = divmod(len(documents[i]), size)
        first = int(rng.integers(slack + 1))
        tiles += [(i, first + n * size) for n in range(count)]
    chosen = [tiles[n] for n in rng.permutation(len(tiles))[:samples]]
    missing = samples - len(chosen)
    if missing:
        log.warning(
            "%d of %d windows of %d tokens overlap others: the texts are short, so the "
            "intervals are too narrow",
            missing,
            samples,
            size,
        )
        taken = set(chosen)
        rest = [(i, n) for i, starts in room.items() for n in range(starts) if (i, n) not in taken]
        chosen += [rest[n] for n in rng.permutation(len(rest))[:missing]]
    windows = (
        Window(document=i, start=start, ids=documents[i][start : start + size])
        for i, start in chosen
    )
    return Drawn(windows=tuple(windows), documents=len(room), overlapping=missing)


def partners(documents: Sequence[int]) -> list[int]:
    """For each window another one, of another document where there is one.

    Returns:
        An index for each window; its own only if it is the only window.
    """
    count = len(documents)
    result = []
    for i, document in enumerate(documents):
        others = [(i + step) % count for step in range(1, count)]
        foreign = (j for j in others if documents[j] != document)
        result.append(next(foreign, others[0] if others else i))
    return result
