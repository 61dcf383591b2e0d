"""Intermediate results of a data build: documents cleaned, checked, hashed and tokenized.

A chunk is a folder with some documents of one input file, in order:

- ``tokens.bin``: token ids of their parts, one after the other.
- ``documents.npz``: ``keys`` uint64 ``[N, 2]``, ``signatures`` uint32 ``[N, P]``, ``parts``
  int64 ``[N]`` (parts of each document), ``lengths`` int64 (tokens of each part).
- ``chunk.json``: the counts, the seconds, and whether the file ends here.

It appears under its name when it is complete, never before.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.data.build_config import BuildConfig
from icae.data.cleaning import clean
from icae.data.contamination import NgramIndex, decontaminate
from icae.data.corpus import CorpusDocument, batched
from icae.data.dedup import Signatures, Sketcher
from icae.data.shards import TokenizerLike, token_dtype, tokenize
from icae.data.words import Hashes, hash_words, text_key

_BATCH_DOCUMENTS = 64
_BATCH_CHARACTERS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What turns a document into a row of a chunk.

    Attributes:
        config: Thresholds.
        tokenizer: Cuts text into tokens.
        sketcher: Computes signatures.
        index: N-grams of the evaluation sets.
    """

    config: BuildConfig
    tokenizer: TokenizerLike
    sketcher: Sketcher
    index: NgramIndex

    @property
    def token_dtype(self) -> np.dtype[Any]:
        """Integers that hold every token id."""
        return token_dtype(len(self.tokenizer))


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A finished chunk.

    Attributes:
        folder: Where it lies.
        source: Name of the source that it belongs to.
        counts: What happened to the documents read: ``read``, the reasons of
            `icae.data.cleaning`, ``contaminated`` and ``few_tokens`` for those dropped,
            ``trimmed`` for those that lost a passage, ``characters`` read,
            ``lines_dropped``, ``overlaps`` and ``characters_cut``.
        last: Whether the input file ends with it.
        seconds: How long it took.
    """

    folder: Path
    source: str
    counts: Mapping[str, int]
    last: bool
    seconds: float

    def documents(self) -> tuple[Hashes, Signatures, NDArray[np.int64]]:
        """Keys uint64 ``[N, 2]``, signatures uint32 ``[N, P]`` and tokens int64 ``[N]``."""
        with np.load(self.folder / "documents.npz", allow_pickle=False) as arrays:
            parts = arrays["parts"]
            owners = np.repeat(np.arange(len(parts)), parts)
            tokens = np.bincount(owners, weights=arrays["lengths"], minlength=len(parts))
            return arrays["keys"], arrays["signatures"], tokens.astype(np.int64)

    def parts(self, chosen: NDArray[np.bool_], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Token ids ``[L]`` of every part of the chosen documents (bool ``[N]``), in order."""
        with np.load(self.folder / "documents.npz", allow_pickle=False) as arrays:
            lengths, wanted = arrays["lengths"], np.repeat(chosen, arrays["parts"])
        ends = np.cumsum(lengths)
        if wanted.any():
            tokens = np.memmap(self.folder / "tokens.bin", dtype=dtype, mode="r")
            for part in np.flatnonzero(wanted):
                yield np.array(tokens[ends[part] - lengths[part] : ends[part]])


def write_chunks(
    documents: Iterator[CorpusDocument], prefix: Path, source: str, tools: Tools
) -> Iterator[int]:
    """Turn all documents of an input file of a source into chunks ``<prefix>-0000`` and so on.

    Those that are there already are skipped. Yields the documents read so far, after each batch.

    Raises:
        InputError: If a document cannot be read.
    """
    done = read_chunks(prefix, source)
    seen, number = sum(chunk.counts["read"] for chunk in done), len(done)
    last = bool(done) and done[-1].last
    most = tools.config.chunk_characters
    groups = batched(
        islice(documents, seen, None),
        most=_BATCH_DOCUMENTS,
        characters=min(most, _BATCH_CHARACTERS),
    )
    while not last:
        start = time.perf_counter()
        folder = _chunk_folder(prefix, number)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        rows = _Rows()
        with (partial / "tokens.bin").open("wb") as tokens:
            for group in groups:
                tokens.writelines(ids.tobytes() for ids in rows.add(group, tools))
                yield seen + rows.counts["read"]
                if rows.counts["characters"] >= most:
                    break
            else:
                last = True
        np.savez(
            partial / "documents.npz",
            keys=np.array(rows.keys, dtype=np.uint64).reshape(-1, 2),
            signatures=np.array(rows.signatures, dtype=np.uint32).reshape(
                -1, tools.config.dedup.permutations
            ),
            parts=np.array(rows.parts, dtype=np.int64),
            lengths=np.array(rows.lengths, dtype=np.int64),
        )
        about = {"counts": rows.counts, "last": last, "seconds": time.perf_counter() - start}
        (partial / "chunk.json").write_text(json.dumps(about), encoding="utf-8")
        partial.rename(folder)
        seen, number = seen + rows.counts["read"], number + 1


def read_chunks(prefix: Path, source: str) -> list[Chunk]:
    """Open the finished chunks of an input file, in order; arguments as for `write_chunks`."""
    chunks: list[Chunk] = []
    while (folder := _chunk_folder(prefix, len(chunks))).is_dir():
        about = json.loads((folder / "chunk.json").read_text(encoding="utf-8"))
        chunks.append(Chunk(folder=folder, source=source, **about))
    return chunks


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows of a chunk as they come; texts are forgotten once they are tokens."""

    counts: Counter[str] = field(default_factory=Counter)
    keys: list[Hashes] = field(default_factory=list)
    signatures: list[Signatures] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)

    def add(self, group: Sequence[CorpusDocument], tools: Tools) -> Iterator[NDArray[Any]]:
        """Take some documents; yields the token ids of the parts that stay."""
        checked = [found for one in group if (found := self._check(one.text, tools))]
        ids = iter(tokenize(tools.tokenizer, [part for _, parts in checked for part in parts]))
        for words, parts in checked:
            encoded = [next(ids) for _ in parts]
            long = [one for one in encoded if len(one) >= tools.config.min_tokens]
            if not long:
                self.counts["few_tokens"] += 1
                continue
            self.keys.append(text_key(words))
            self.signatures.append(tools.sketcher(words))
            self.parts.append(len(long))
            self.lengths.extend(map(len, long))
            yield from (np.array(one, dtype=tools.token_dtype) for one in long)

    def _check(self, text: str, tools: Tools) -> tuple[Hashes, tuple[str, ...]] | None:
        """Word hashes and parts of a document that passes every check, else None."""
        self.counts.update(read=1, characters=len(text))
        cleaned = clean(text, tools.config.cleaning)
        self.counts["lines_dropped"] += cleaned.lines_dropped
        if cleaned.text is None:
            self.counts[str(cleaned.reason)] += 1
            return None
        words = hash_words(cleaned.text)
        left = decontaminate(cleaned.text, words, tools.index, tools.config.contamination)
        self.counts.update(overlaps=left.overlaps, characters_cut=left.characters_removed)
        if not left.parts:
            self.counts["contaminated"] += 1
            return None
        self.counts["trimmed"] += left.overlaps > 0
        return words, left.parts


def _chunk_folder(prefix: Path, number: int) -> Path:
    return prefix.with_name(f"{prefix.name}-{number:04d}")
