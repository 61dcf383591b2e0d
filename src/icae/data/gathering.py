"""The documents of a data build: cleaned, checked, hashed and tokenized, each read once.

In memory are their keys and signatures, never their texts; their tokens go to a file.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from icae.data.build_config import EVALUATION, BuildConfig, InputFile
from icae.data.cleaning import clean
from icae.data.contamination import NgramIndex, decontaminate
from icae.data.corpus import CorpusDocument, batched, read_source
from icae.data.dedup import PERMUTATIONS, Signatures, Sketcher
from icae.data.shards import TokenizerLike, token_dtype, tokenize
from icae.data.words import Hashes, hash_words, text_key

_BATCH_DOCUMENTS = 64
_BATCH_CHARACTERS = 1_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """The N documents that passed every check, in order, of P parts in all.

    Attributes:
        counts: Source -> what happened to the documents read: ``read``, the reasons of
            `icae.data.cleaning`, ``contaminated`` and ``few_tokens`` for those dropped,
            ``trimmed`` for those that lost a passage, ``characters`` read,
            ``lines_dropped``, ``overlaps`` and ``characters_cut``.
        sources: Source of each document, by number, int64 ``[N]``.
        keys: uint64 ``[N, 2]``.
        signatures: uint32 ``[N, permutations]``.
        part_ends: One past the last part of each document, int64 ``[N]``.
        token_ends: One past the last token of each part in the file, int64 ``[P]``.
        ids: Token ids of all parts, mapped from the file.
    """

    counts: Mapping[str, Mapping[str, int]]
    sources: NDArray[np.int64]
    keys: Hashes
    signatures: Signatures
    part_ends: NDArray[np.int64]
    token_ends: NDArray[np.int64]
    ids: NDArray[Any]

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens of each document, int64 ``[N]``."""
        return np.diff(self.token_ends[self.part_ends - 1], prepend=0)

    def parts(self, document: int) -> Iterator[NDArray[Any]]:
        """Token ids ``[L]`` of every part of a document, in order."""
        first = self.part_ends[document - 1] if document else 0
        for part in range(first, self.part_ends[document]):
            start = self.token_ends[part - 1] if part else 0
            yield np.array(self.ids[start : self.token_ends[part]])


def gather(
    config: BuildConfig,
    tokenizer: TokenizerLike,
    index: NgramIndex,
    inputs: Sequence[InputFile],
    file: Path,
    *,
    on_progress: Callable[[str], None],
) -> Gathered:
    """Read every input file; the tokens of what stays go to a new file.

    Raises:
        InputError: If a document cannot be read.
        MissingDependencyError: If datasketch is not installed.
    """
    rows = _Rows(
        config=config, tokenizer=tokenizer, sketcher=Sketcher(seed=config.seed), index=index
    )
    names = [source.name for source in config.sources]
    with file.open("wb") as stream:
        for one in (one for one in inputs if one.role != EVALUATION):
            documents = read_source(Path(one.path))
            seen = 0
            for group in batched(documents, most=_BATCH_DOCUMENTS, characters=_BATCH_CHARACTERS):
                rows.add(group, names.index(one.role), stream)
                seen += len(group)
                on_progress(f"Reading {Path(one.path).name}: {seen:,} documents")
    dtype = token_dtype(len(tokenizer))
    return Gathered(
        counts=dict(zip(names, rows.counts, strict=True)),
        sources=np.array(rows.sources, dtype=np.int64),
        keys=np.array(rows.keys, dtype=np.uint64).reshape(-1, 2),
        signatures=np.array(rows.signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS),
        part_ends=np.cumsum(rows.parts, dtype=np.int64),
        token_ends=np.cumsum(rows.lengths, dtype=np.int64),
        ids=np.memmap(file, dtype=dtype, mode="r") if rows.lengths else np.zeros(0, dtype),
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What is known of the documents as they come, and what checks them."""

    config: BuildConfig
    tokenizer: TokenizerLike
    sketcher: Sketcher
    index: NgramIndex
    counts: list[Counter[str]] = field(init=False)
    sources: array[int] = field(default_factory=lambda: array("q"))
    keys: list[Hashes] = field(default_factory=list)
    signatures: list[Signatures] = field(default_factory=list)
    parts: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", [Counter() for _ in self.config.sources])

    def add(self, group: Sequence[CorpusDocument], source: int, tokens: BinaryIO) -> None:
        """Take some documents of a source, and write the token ids of the parts that stay."""
        counts, dtype = self.counts[source], token_dtype(len(self.tokenizer))
        checked = [found for one in group if (found := self._check(one.text, counts))]
        ids = iter(tokenize(self.tokenizer, [part for _, parts in checked for part in parts]))
        for words, parts in checked:
            encoded = [next(ids) for _ in parts]
            long = [one for one in encoded if len(one) >= self.config.min_tokens]
            if not long:
                counts["few_tokens"] += 1
                continue
            self.sources.append(source)
            self.keys.append(text_key(words))
            self.signatures.append(self.sketcher(words))
            self.parts.append(len(long))
            self.lengths.extend(map(len, long))
            tokens.writelines(np.array(one, dtype=dtype).tobytes() for one in long)

    def _check(self, text: str, counts: Counter[str]) -> tuple[Hashes, tuple[str, ...]] | None:
        """Word hashes and parts of a document that passes every check, else None."""
        counts.update(read=1, characters=len(text))
        cleaned = clean(text)
        counts["lines_dropped"] += cleaned.lines_dropped
        if cleaned.reason:
            counts[cleaned.reason] += 1
            return None
        words = hash_words(cleaned.text)
        left = decontaminate(cleaned.text, words, self.index)
        counts.update(overlaps=left.overlaps, characters_cut=left.characters_removed)
        if not left.parts:
            counts["contaminated"] += 1
            return None
        counts["trimmed"] += left.overlaps > 0
        return words, left.parts
