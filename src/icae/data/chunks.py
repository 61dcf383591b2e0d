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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icae.data.build_config import BuildConfig
from icae.data.cleaning import clean
from icae.data.contamination import NgramIndex, decontaminate
from icae.data.corpus import CorpusDocument, batched
from icae.data.dedup import Signatures, Sketcher
from icae.data.shards import TokenizerLike
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
        """Smallest unsigned integers that hold every token id."""
        return np.dtype("<u2" if len(self.tokenizer) <= 65536 else "<u4")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A finished chunk.

    Attributes:
        folder: Where it lies.
        counts: What happened to the documents read: ``read``, the reasons of
            `icae.data.cleaning`, ``contaminated`` and ``few_tokens`` for those dropped,
            ``trimmed`` for those that lost a passage, ``characters`` read,
            ``lines_dropped``, ``overlaps`` and ``characters_cut``.
        last: Whether the input file ends with it.
        seconds: How long it took.
    """

    folder: Path
    counts: Mapping[str, int]
    last: bool
    seconds: float

    @classmethod
    def open(cls, folder: Path) -> Chunk:
        """Open a finished chunk."""
        return cls(folder=folder, **json.loads((folder / "chunk.json").read_text(encoding="utf-8")))

    def documents(self) -> tuple[Hashes, Signatures, NDArray[np.int64]]:
        """Keys, signatures and number of tokens of its documents.

        Returns:
            uint64 ``[N, 2]``, uint32 ``[N, P]``, int64 ``[N]``.
        """
        with np.load(self.folder / "documents.npz", allow_pickle=False) as arrays:
            owners = np.repeat(np.arange(len(arrays["parts"])), arrays["parts"])
            tokens = np.bincount(
                owners, weights=arrays["lengths"], minlength=len(arrays["parts"])
            ).astype(np.int64)
            return arrays["keys"], arrays["signatures"], tokens

    def parts(self, chosen: NDArray[np.bool_], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Token ids of the parts of some documents, in order.

        Args:
            chosen: bool ``[N]``, which documents.
            dtype: Type of the ids in the file.

        Yields:
            Token ids ``[L]`` of one part.
        """
        with np.load(self.folder / "documents.npz", allow_pickle=False) as arrays:
            lengths, wanted = arrays["lengths"], np.repeat(chosen, arrays["parts"])
        ends = np.cumsum(lengths)
        if wanted.any():
            tokens = np.memmap(self.folder / "tokens.bin", dtype=dtype, mode="r")
            for part in np.flatnonzero(wanted):
                yield np.array(tokens[ends[part] - lengths[part] : ends[part]])


class _Rows:
    """The rows of a chunk as they come; texts are forgotten once they are tokens."""

    def __init__(self, tools: Tools) -> None:
        self.counts: Counter[str] = Counter()
        self._tools = tools
        self._keys: list[Hashes] = []
        self._signatures: list[Signatures] = []
        self._parts: list[int] = []
        self._lengths: list[int] = []

    def add(self, group: Sequence[CorpusDocument]) -> list[NDArray[Any]]:
        """Take some documents; returns the token ids of the parts that stay."""
        tools = self._tools
        checked = [(words, parts) for document in group for words, parts in self._check(document)]
        texts = [part for _, parts in checked for part in parts]
        if not texts:
            return []
        encoded = tools.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        ids, kept, at = encoded["input_ids"], list[NDArray[Any]](), 0
        for words, parts in checked:
            long = [one for one in ids[at : at + len(parts)] if len(one) >= tools.config.min_tokens]
            at += len(parts)
            if not long:
                self.counts["few_tokens"] += 1
                continue
            self._keys.append(text_key(words))
            self._signatures.append(tools.sketcher(words))
            self._parts.append(len(long))
            self._lengths.extend(map(len, long))
            kept.extend(np.array(one, dtype=tools.token_dtype) for one in long)
        return kept

    def _check(self, document: CorpusDocument) -> Iterator[tuple[Hashes, tuple[str, ...]]]:
        config = self._tools.config
        self.counts.update(read=1, characters=len(document.text))
        cleaned = clean(document.text, config.cleaning)
        self.counts["lines_dropped"] += cleaned.lines_dropped
        if cleaned.text is None:
            self.counts[str(cleaned.reason)] += 1
            return
        words = hash_words(cleaned.text)
        left = decontaminate(cleaned.text, words, self._tools.index, config.contamination)
        self.counts.update(overlaps=left.overlaps, characters_cut=left.characters_removed)
        if not left.parts:
            self.counts["contaminated"] += 1
            return
        self.counts["trimmed"] += left.overlaps > 0
        yield words, left.parts

    def save(self, folder: Path) -> None:
        """Write ``documents.npz``."""
        permutations = self._tools.config.dedup.permutations
        np.savez(
            folder / "documents.npz",
            keys=np.array(self._keys, dtype=np.uint64).reshape(-1, 2),
            signatures=np.array(self._signatures, dtype=np.uint32).reshape(-1, permutations),
            parts=np.array(self._parts, dtype=np.int64),
            lengths=np.array(self._lengths, dtype=np.int64),
        )


def write_chunks(documents: Iterator[CorpusDocument], prefix: Path, tools: Tools) -> Iterator[int]:
    """Turn an input file into chunks; those that are there already are skipped.

    Args:
        documents: All documents of the file, from the first one.
        prefix: The chunks are ``<prefix>-0000``, ``<prefix>-0001`` and so on.
        tools: What to do with a document.

    Yields:
        Documents read so far, after every batch.

    Raises:
        InputError: If a document cannot be read.
    """
    done = read_chunks(prefix)
    if done and done[-1].last:
        return
    seen = sum(chunk.counts["read"] for chunk in done)
    for _ in range(seen):
        next(documents, None)
    stream = _Peekable(documents)
    number, last = len(done), False
    while not last:
        start = time.perf_counter()
        folder = _chunk_folder(prefix, number)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        rows = _Rows(tools)
        limited = stream.take(tools.config.chunk_characters)
        with (partial / "tokens.bin").open("wb") as tokens:
            for group in batched(limited, most=_BATCH_DOCUMENTS, characters=_BATCH_CHARACTERS):
                for ids in rows.add(group):
                    tokens.write(ids.tobytes())
                yield seen + rows.counts["read"]
        rows.save(partial)
        last = stream.empty
        seen += rows.counts["read"]
        about = {"counts": rows.counts, "last": last, "seconds": time.perf_counter() - start}
        (partial / "chunk.json").write_text(json.dumps(about), encoding="utf-8")
        partial.rename(folder)
        number += 1


def read_chunks(prefix: Path) -> list[Chunk]:
    """Open the finished chunks of an input file, in order.

    Args:
        prefix: As for `write_chunks`.
    """
    chunks: list[Chunk] = []
    while (folder := _chunk_folder(prefix, len(chunks))).is_dir():
        chunks.append(Chunk.open(folder))
    return chunks


def _chunk_folder(prefix: Path, number: int) -> Path:
    return prefix.with_name(f"{prefix.name}-{number:04d}")


class _Peekable:
    """A stream of documents that knows whether it has ended."""

    def __init__(self, documents: Iterator[CorpusDocument]) -> None:
        self._documents = documents
        self._next = next(documents, None)

    @property
    def empty(self) -> bool:
        return self._next is None

    def take(self, characters: int) -> Iterator[CorpusDocument]:
        """Documents until so many characters were given, at least one."""
        size = 0
        while self._next is not None and size < characters:
            document = self._next
            size += len(document.text)
            self._next = next(self._documents, None)
            yield document
