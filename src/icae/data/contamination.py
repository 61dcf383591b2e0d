"""Overlap of training text with evaluation sets, found by word n-grams and cut out.

Every run of `ngram_words` words (12) in the evaluation texts is kept as a 64-bit hash. A run
of a training document that is among them is an overlap: the paragraph (line) around it is
cut out, and the document falls into the parts before and after. Very long paragraphs lose
the sentences around the overlap only. Texts of fewer than 12 words, such as most questions
and answers, cannot be found this way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icae.data.corpus import list_corpus, read_source
from icae.data.rows import bad_line, read_json_lines
from icae.data.words import Hashes, hash_words, locate_words, ngram_hashes

NGRAM_WORDS = 12
"""Words of a run that must not occur in both."""
LARGEST_SHARE = 0.5
"""A document with more than this share of its words in overlaps is dropped as a whole."""

_MOST_TABLE_BITS = 24
_MERGE_AT = 4_000_000
_LONG_PARAGRAPH = 2000
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*\s+|\n")
_FIELDS = ("text", "context", "prompt", "answer", "answers")


@dataclass(frozen=True, kw_only=True)
class ContaminationConfig:
    """What training text is checked against.

    Attributes:
        against: Evaluation files or folders: corpora (``text``) and triplets (``context``,
            ``prompt``, ``answer``, ``answers``). Empty: nothing is checked.
    """

    against: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decontaminated:
    """What is left of a document.

    Attributes:
        parts: The text in the pieces between overlaps; empty if all of it was dropped.
        overlaps: Overlapping passages found.
        characters_removed: Characters cut out, or all of them.
    """

    parts: tuple[str, ...]
    overlaps: int
    characters_removed: int


class NgramIndex:
    """Hashes of all runs of n words of a set of texts, which are read once.

    Memory: 8 bytes for each distinct n-gram, and a table of at most 16 MB.
    """

    def __init__(self, texts: Iterable[str], *, n: int) -> None:
        self.n = n
        merged, waiting, size = np.zeros(0, dtype=np.uint64), list[Hashes](), 0
        for text in texts:
            waiting.append(ngram_hashes(hash_words(text), n))
            size += len(waiting[-1])
            if size >= _MERGE_AT:
                merged, waiting, size = np.unique(np.concatenate([merged, *waiting])), [], 0
        self._hashes = np.unique(np.concatenate([merged, *waiting]))
        # Most n-grams of a training text are refused by this table, without a search.
        bits = min(_MOST_TABLE_BITS, 4 + len(self._hashes).bit_length())
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[self._hashes >> self._shift] = True

    def __len__(self) -> int:
        """Return the number of distinct n-grams."""
        return len(self._hashes)

    def find(self, words: Hashes) -> NDArray[np.int64]:
        """Positions, rising, of the words (hashed, uint64 ``[W]``) where a known n-gram starts."""
        if not len(self._hashes):
            return np.zeros(0, dtype=np.int64)
        hashes = ngram_hashes(words, self.n)
        maybe = np.flatnonzero(self._table[hashes >> self._shift])
        wanted = hashes[maybe]
        at = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return np.asarray(maybe[self._hashes[at] == wanted], dtype=np.int64)


def evaluation_texts(paths: Iterable[str]) -> Iterator[str]:
    """Stream each document, context, prompt and answer of corpora and triplets.

    Raises:
        InputError: If a file cannot be read, or a JSON line has none of the fields.
    """
    for path in paths:
        for file in list_corpus([path]):
            yield from _texts_of(file)


def _texts_of(file: Path) -> Iterator[str]:
    if ".jsonl" not in file.suffixes:
        for document in read_source(file):
            yield document.text
        return
    for number, record in read_json_lines(file):
        values = (record.get(name) for name in _FIELDS)
        lists = (value if isinstance(value, list) else [value] for value in values)
        texts = [text for one in lists for text in one if isinstance(text, str)]
        if not texts:
            expected = "a field 'text', or the fields of a triplet"
            raise bad_line(file, number, f"fields {', '.join(record)}", expected)
        yield from texts


def decontaminate(text: str, words: Hashes, index: NgramIndex) -> Decontaminated:
    """Cut the passages out of a text (its words hashed, uint64 ``[W]``) that are in the index."""
    hits = index.find(words)
    if not len(hits):
        return Decontaminated(parts=(text,), overlaps=0, characters_removed=0)
    passages = _passages(hits, index.n)
    covered = sum(end - start for start, end in passages)
    if covered > LARGEST_SHARE * len(words):
        return Decontaminated(parts=(), overlaps=len(passages), characters_removed=len(text))
    _, starts, ends = locate_words(text)
    parts, done, left = [], 0, 0
    for first, last in passages:
        begin, end = _around(text, int(starts[first]), int(ends[last - 1]))
        if begin > done:
            parts.append(text[done:begin].strip("\n"))
            left += begin - done
        done = max(done, end)
    parts.append(text[done:].strip("\n"))
    left += len(text) - done
    return Decontaminated(
        parts=tuple(part for part in parts if part.strip()),
        overlaps=len(passages),
        characters_removed=len(text) - left,
    )


def _passages(hits: NDArray[np.int64], n: int) -> list[tuple[int, int]]:
    """Join n-grams that touch: word ranges ``(first, one past the last)``."""
    breaks = np.flatnonzero(np.diff(hits) > n)
    firsts = hits[np.concatenate([[0], breaks + 1])]
    lasts = hits[np.concatenate([breaks, [len(hits) - 1]])] + n
    return [(int(a), int(b)) for a, b in zip(firsts, lasts, strict=True)]


def _around(text: str, start: int, end: int) -> tuple[int, int]:
    """The paragraphs that a passage touches; in a very long one, the sentences."""
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end)
    stop = len(text) if stop < 0 else stop
    if start - begin > _LONG_PARAGRAPH:
        ends = [sentence.end() for sentence in _SENTENCE_END.finditer(text, begin, start)]
        begin = ends[-1] if ends else begin
    if stop - end > _LONG_PARAGRAPH:
        after = _SENTENCE_END.search(text, end, stop)
        stop = after.end() if after else stop
    return begin, stop
