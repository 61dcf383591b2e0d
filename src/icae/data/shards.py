"""Packed token shards: a corpus tokenized once, read by memory map ever after.

A shard set is a folder:

- ``tokens-00000.bin``, ``tokens-00001.bin``, ...: token ids, raw little-endian uint16
  (uint32 when the vocabulary has more than 65,536 entries). Documents follow one
  another without a separator and may cross from one file into the next.
- ``documents.npy``: int64 ``[N + 1]``, the global token offset at which each document
  starts, and the total.
- ``index.json``: what the files hold and which tokenizer made them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from icae.config.types import TokenIds
from icae.data.corpus import CorpusDocument, batched
from icae.errors import InputError

logger = logging.getLogger(__name__)

FORMAT = "icae-token-shards"
VERSION = 1
_BATCH_CHARACTERS = 2_000_000


class TokenizerLike(Protocol):
    """A tokenizer as it is seen here; every Hugging Face fast tokenizer is one."""

    def __call__(self, text: list[str], /, *, add_special_tokens: bool, **options: Any) -> Any:
        """Return a mapping whose ``input_ids`` holds one list of token ids for each text."""
        ...

    def __len__(self) -> int:
        """Return the vocabulary size, added tokens included."""
        ...


def tokenize(tokenizer: TokenizerLike, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of some texts, without special tokens, as training and inference count them."""
    if not texts:
        return []
    # verbose=False mutes the warning about the model's window: spans are cut later.
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Smallest unsigned integers that hold every token id."""
    return np.dtype("<u2" if vocab_size <= 65536 else "<u4")


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One token file: its name in the folder, its number of tokens and its SHA-256."""

    name: str
    tokens: int
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardSet:
    """A shard set opened for reading; tokens stay on disk until they are read.

    Attributes:
        tokens: Number of token ids in all files.
        documents: Number of documents N.
        vocab_size: Entries of the tokenizer's vocabulary.
        sources: Tokens of each source.
        bounds: int64 ``[N + 1]``, global offset at which each document starts, and the total.
    """

    folder: Path
    tokens: int
    documents: int
    vocab_size: int
    tokenizer_hash: str
    sources: Mapping[str, int]
    bounds: NDArray[np.int64] = field(repr=False)
    _maps: tuple[NDArray[Any], ...] = field(repr=False)
    _starts: NDArray[np.int64] = field(repr=False)

    @classmethod
    def open(cls, folder: Path | str) -> ShardSet:
        """Open a folder written by `ShardWriter`; checks sizes and structure, not the digests.

        Raises:
            InputError: If the folder is missing, not a shard set, truncated, or its files
                disagree with its index.
        """
        folder = Path(folder)
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if (index["format"], index["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {index['format']!r} version {index['version']!r}")
            dtype = token_dtype(index["vocab_size"])
            files = tuple(ShardFile(**entry) for entry in index["shards"])
            starts = [0, *accumulate(file.tokens for file in files)]
            bounds = np.load(folder / "documents.npy", allow_pickle=False)
            if (dtype.name, starts[-1]) != (index["dtype"], index["tokens"]):
                raise ValueError("index.json contradicts itself")
            if bounds.dtype != np.int64 or bounds.shape != (index["documents"] + 1,):
                raise ValueError("documents.npy does not fit index.json")
            if bounds[0] != 0 or bounds[-1] != starts[-1] or not (np.diff(bounds) > 0).all():
                raise ValueError("documents.npy does not increase from 0 to the number of tokens")
            sources = {name: int(count["tokens"]) for name, count in index["sources"].items()}
            return cls(
                folder=folder,
                tokens=int(index["tokens"]),
                documents=int(index["documents"]),
                vocab_size=int(index["vocab_size"]),
                tokenizer_hash=str(index["tokenizer_hash"]),
                sources=MappingProxyType(sources),
                bounds=bounds,
                _maps=tuple(_map_file(folder, file, dtype) for file in files),
                _starts=np.array(starts[:-1], dtype=np.int64),
            )
        except KeyError as error:
            raise _unusable(folder, f"index.json without {error}") from error
        except (OSError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise _unusable(folder, str(error)) from error

    def read(self, start: int, end: int) -> TokenIds:
        """Copy tokens ``start`` up to ``end`` (global offsets), int64 ``[end - start]``.

        Raises:
            InputError: Unless ``0 <= start <= end <= tokens``.
        """
        if not 0 <= start <= end <= self.tokens:
            raise _refused(f"tokens {start}..{end}", f"within 0..{self.tokens}")
        out = np.empty(end - start, dtype=np.int64)
        done = 0
        while done < len(out):
            at = start + done
            shard = int(np.searchsorted(self._starts, at, side="right")) - 1
            inside = at - int(self._starts[shard])
            piece = self._maps[shard][inside : inside + len(out) - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
        return out

    def document_at(self, offset: int) -> tuple[int, int]:
        """Bounds ``(start, end)`` of the document that holds a token, ``start <= offset < end``.

        Raises:
            InputError: Unless ``0 <= offset < tokens``.
        """
        if not 0 <= offset < self.tokens:
            raise _refused(f"token {offset}", f"0 <= offset < {self.tokens}")
        document = int(np.searchsorted(self.bounds, offset, side="right")) - 1
        return int(self.bounds[document]), int(self.bounds[document + 1])


class ShardWriter:
    """Write a shard set document by document, as a context manager.

    Files go to a hidden folder beside the target, which is renamed when the block ends, and
    removed when it ends with an exception, as it is if there was no document. Token ids are
    below ``vocab_size``; each file but the last has ``shard_tokens`` of them.

    Raises:
        InputError: If the target is in use or cannot be written or, at the end of the block,
            no document was added.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        vocab_size: int,
        tokenizer_hash: str,
        shard_tokens: int = 16_000_000,
        created_by: str | None = None,
    ) -> None:
        self._folder = Path(folder)
        self._vocab_size = vocab_size
        self._about = {"vocab_size": vocab_size, "tokenizer_hash": tokenizer_hash}
        self._about |= {} if created_by is None else {"created_by": created_by}
        self._dtype = token_dtype(vocab_size)
        self._shard_tokens = shard_tokens
        self._bounds = array("q", [0])
        self._sources: dict[str, dict[str, int]] = {}
        self._files: list[ShardFile] = []
        self._digest = hashlib.sha256()
        self._open_tokens = 0
        self._partial = self._folder.parent / f".{self._folder.name}.partial-{uuid.uuid4().hex[:8]}"
        if self._folder.exists() and (not self._folder.is_dir() or any(self._folder.iterdir())):
            raise _occupied(self._folder)
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise _refused(f"{self._folder}: {error.strerror}", "a folder to write to") from error

    def add(self, token_ids: Sequence[int] | NDArray[Any], *, source: str) -> None:
        """Append a document of ``[L]`` token ids, at least one, that came from a source.

        Raises:
            InputError: If the document is empty or an id is out of range.
        """
        ids = np.asarray(token_ids, dtype=np.int64)
        if ids.ndim != 1 or not len(ids):
            raise _refused(f"a document of shape {ids.shape}", "one of at least one token")
        if int(ids.min()) < 0 or int(ids.max()) >= self._vocab_size:
            got = f"token ids {ids.min()}..{ids.max()}"
            raise _refused(got, f"0 <= id < {self._vocab_size}, the vocabulary")
        done = 0
        while done < len(ids):
            piece = ids[done : done + self._shard_tokens - self._open_tokens]
            data = piece.astype(self._dtype).tobytes()
            with (self._partial / self._file_name()).open("ab") as stream:
                stream.write(data)
            self._digest.update(data)
            self._open_tokens += len(piece)
            done += len(piece)
            if self._open_tokens == self._shard_tokens:
                self._finish_file()
        self._bounds.append(self._bounds[-1] + len(ids))
        counts = self._sources.setdefault(source, {"documents": 0, "tokens": 0})
        counts["documents"] += 1
        counts["tokens"] += len(ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _finish(self) -> None:
        """Write the index and rename the folder to its target."""
        if len(self._bounds) == 1:
            raise _refused(f"no document for {self._folder}", "at least one document")
        self._finish_file()
        index = {"format": FORMAT, "version": VERSION, "dtype": self._dtype.name, **self._about}
        index |= {"documents": len(self._bounds) - 1, "tokens": self._bounds[-1]}
        index |= {"sources": self._sources, "shards": [asdict(file) for file in self._files]}
        np.save(self._partial / "documents.npy", np.array(self._bounds, dtype=np.int64))
        text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
        (self._partial / "index.json").write_text(text, encoding="utf-8")
        try:
            if self._folder.exists():
                self._folder.rmdir()
            self._partial.rename(self._folder)
        except OSError as error:
            raise _occupied(self._folder) from error

    def _file_name(self) -> str:
        return f"tokens-{len(self._files):05d}.bin"

    def _finish_file(self) -> None:
        if self._open_tokens:
            name, digest = self._file_name(), self._digest.hexdigest()
            self._files.append(ShardFile(name=name, tokens=self._open_tokens, sha256=digest))
            self._digest, self._open_tokens = hashlib.sha256(), 0


def pack(
    documents: Iterable[CorpusDocument],
    tokenizer: TokenizerLike,
    folder: Path | str,
    *,
    tokenizer_hash: str,
    batch: int = 64,
    min_tokens: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> ShardSet:
    """Tokenize a corpus into a new shard set, in batches and bounded memory.

    Documents with fewer than ``min_tokens`` are left out. ``on_progress`` is called after each
    batch (of at most ``batch`` documents, fewer when they are long) with the documents and
    tokens read so far.

    Raises:
        InputError: If the corpus cannot be read, no document is long enough, or the target
            is in use.
    """
    seen = kept = tokens = 0
    with ShardWriter(folder, vocab_size=len(tokenizer), tokenizer_hash=tokenizer_hash) as writer:
        for group in batched(documents, most=batch, characters=_BATCH_CHARACTERS):
            encoded = tokenize(tokenizer, [document.text for document in group])
            for document, ids in zip(group, encoded, strict=True):
                if len(ids) >= max(1, min_tokens):
                    writer.add(ids, source=document.source)
                    kept += 1
                tokens += len(ids)
            seen += len(group)
            if on_progress is not None:
                on_progress(seen, tokens)
    logger.info("Packed %d of %d documents (%d tokens read).", kept, seen, tokens)
    return ShardSet.open(folder)


def _map_file(folder: Path, file: ShardFile, dtype: np.dtype[Any]) -> NDArray[Any]:
    if Path(file.name).name != file.name:
        raise ValueError(f"shard name {file.name!r} leaves the folder")
    if (found := (folder / file.name).stat().st_size) != file.tokens * dtype.itemsize:
        raise ValueError(f"{file.name} has {found} bytes, expected {file.tokens} tokens")
    return np.memmap(folder / file.name, dtype=dtype, mode="r")


def _refused(got: str, expected: str, fix: str | None = None) -> InputError:
    return InputError("The token shards cannot take that.", got=got, expected=expected, fix=fix)


def _occupied(folder: Path) -> InputError:
    got = f"{folder} exists and is not an empty folder"
    return _refused(got, "a new or empty folder", "choose another folder, or remove that one")


def _unusable(folder: Path, got: str) -> InputError:
    return InputError(
        "This is not a usable set of token shards.",
        got=f"{folder}: {got}",
        expected=f"a complete folder in the format {FORMAT}, version {VERSION}",
        fix="check the path, or pack the corpus again into a new folder",
    )
