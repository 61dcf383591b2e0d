"""Text corpora as streams of documents: files and Hugging Face datasets.

Files are .txt, .md and .jsonl, plain or compressed, and .parquet; a dataset is written
``hf:owner/name`` (see `icae.data.hf_dataset`).
Nothing is held in memory but the document being read (of Parquet, a batch of rows). Neither
a tokenizer nor a model is known here.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from icae.data.hf_dataset import is_dataset, parse_dataset, read_dataset
from icae.data.parquet import read_parquet
from icae.errors import InputError

TEXT_SUFFIXES = (".txt", ".md")
COMPRESSIONS = (".xz", ".gz", ".zst")

_DAMAGED = (lzma.LZMAError, zlib.error, zstandard.ZstdError, EOFError, gzip.BadGzipFile)
_KINDS = "a .parquet file, or a .txt, .md or .jsonl file, plain or under .xz, .gz or .zst"


@dataclass(frozen=True, kw_only=True)
class CorpusDocument:
    """One document of a corpus.

    Attributes:
        text: The whole text.
        source: Name of the corpus that it came from: the file stem, as in ``wikipedia-0``.
        title: Its title, if the corpus has one.
    """

    text: str
    source: str
    title: str | None = None


def read_corpus(
    paths: Sequence[Path | str], *, limit_documents: int | None = None
) -> Iterator[CorpusDocument]:
    """Stream the documents of files and folders, in the order given.

    A .txt or .md file is one document; each line of a .jsonl file is one, with the field
    ``text`` and optionally ``title``; other fields are ignored. So is each row of a .parquet
    file and of a Hugging Face dataset. A folder stands for the corpus files in it and below,
    by name; its other files, and hidden ones, are skipped.

    Args:
        paths: Files, folders or datasets (``hf:...``, see `icae.data.hf_dataset`).
        limit_documents: Stop after so many documents.

    Yields:
        Documents with some text, blank ones are skipped.

    Raises:
        InputError: At the first step, if a path is missing, a named file is of another type
            or a folder holds no corpus file; when it is reached, if a file cannot be read
            (with the line number in .jsonl).
        MissingDependencyError: When it is reached, if a file needs a package of the extra
            ``data`` that is not installed.
    """
    files = list_corpus(paths)
    left = limit_documents
    for file in files:
        for document in read_source(file):
            if left is not None:
                if left <= 0:
                    return
                left -= 1
            yield document


def list_corpus(paths: Sequence[Path | str]) -> list[Path | str]:
    """The corpus files and datasets that paths stand for, in order.

    Args:
        paths: Files, folders or datasets.

    Returns:
        Files as `Path`, datasets as text.

    Raises:
        InputError: As `read_corpus` at its first step.
    """
    files: list[Path | str] = []
    for path in paths:
        if is_dataset(path):
            parse_dataset(path)
            files.append(str(path))
        else:
            files.extend(_corpus_files(Path(path)))
    return files


def read_source(file: Path | str) -> Iterator[CorpusDocument]:
    """Stream the documents of one file or dataset of `list_corpus`.

    Args:
        file: The file or dataset.

    Yields:
        Documents with some text.

    Raises:
        InputError: If it cannot be read.
        MissingDependencyError: If it needs a package that is not installed.
    """
    if is_dataset(file):
        spec = parse_dataset(file)
        yield from _documents(read_dataset(spec), spec.source)
        return
    path = Path(file)
    bare = _bare(path)
    if bare.suffix in TEXT_SUFFIXES:
        with open_text(path) as stream:
            yield from _documents([(stream.read(), None)], bare.stem)
    elif bare.suffix == ".parquet":
        yield from _documents(read_parquet(path), bare.stem)
    else:
        yield from _documents(_json_rows(path), bare.stem)


def batched(
    documents: Iterable[CorpusDocument], *, most: int, characters: int
) -> Iterator[list[CorpusDocument]]:
    """Group documents in order; a group is closed once it is full by number or by size.

    Args:
        documents: The stream.
        most: Most documents in a group.
        characters: A group that has reached so many characters takes no further document.

    Yields:
        Groups of at least one document.
    """
    group: list[CorpusDocument] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document.text)
        if len(group) >= most or size >= characters:
            yield group
            group, size = [], 0
    if group:
        yield group


def read_json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Stream the objects of a .jsonl file, plain or under .xz, .gz or .zst.

    Args:
        path: The file.

    Yields:
        ``(line number from 1, object)`` for each line that is not blank.

    Raises:
        InputError: If the file cannot be read, or a line is not a JSON object.
    """
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise bad_line(path, number, f"{error}", "one JSON object on each line") from error
            if not isinstance(record, dict):
                got = f"a {type(record).__name__}"
                raise bad_line(path, number, got, "one JSON object on each line")
            yield number, record


def bad_line(path: Path, number: int, got: str, expected: str) -> InputError:
    """Error for one line of a data file.

    Args:
        path: The file.
        number: Line number from 1.
        got: What the line holds.
        expected: What it should hold.

    Returns:
        The error, to be raised by the caller.
    """
    return InputError(
        f"Line {number} of {path} cannot be used.",
        got=got,
        expected=expected,
        fix="correct or remove that line",
    )


def text_field(record: Mapping[str, Any], name: str, *, path: Path, number: int) -> str:
    """Field of a JSON object that must be there and be text.

    Args:
        record: The object.
        name: The field.
        path: File that it stands in, for the error.
        number: Its line number, for the error.

    Returns:
        The text as it stands.

    Raises:
        InputError: If the field is missing or is not text.
    """
    value = record.get(name)
    if not isinstance(value, str):
        got = f"{name} is a {type(value).__name__}" if name in record else f"no field {name!r}"
        raise bad_line(path, number, got, f"a field {name!r} with text")
    return value


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file for reading, decompressed by its suffix.

    Errors that appear while it is read are turned into InputError too.

    Args:
        path: A file; .xz, .gz and .zst are decompressed on the way.

    Yields:
        The stream; a byte-order mark is dropped.

    Raises:
        InputError: If the file is missing, unreadable, damaged or not UTF-8.
    """
    try:
        with _open_bytes(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as text:
            yield text
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"not UTF-8 ({error.reason})", "UTF-8 text") from error
    except _DAMAGED as error:
        raise _unreadable(path, f"damaged archive: {error}", "a complete archive") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), "a readable file") from error


def _open_bytes(path: Path) -> IO[bytes]:
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstdStream(path))
    return path.open("rb")


class _ZstdStream(io.RawIOBase):
    """Zstandard frames as plain bytes; a cut frame is an error, not an early end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False
        self._ready = b""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._frame.unused_data if self._frame.eof else b""
            data = data or self._file.read(1 << 16)
            if not data and self._inside:
                raise EOFError("it ends inside a Zstandard frame")
            if not data:
                return 0
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._ready = self._frame.decompress(data)
            self._inside = not self._frame.eof
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def _unreadable(path: Path, got: str, expected: str) -> InputError:
    return InputError(f"{path} cannot be read.", got=got, expected=expected)


def _bare(path: Path) -> Path:
    """The path without the suffix of its compression."""
    return path.with_suffix("") if path.suffix in COMPRESSIONS else path


def _is_corpus_file(path: Path) -> bool:
    return path.suffix == ".parquet" or _bare(path).suffix in (*TEXT_SUFFIXES, ".jsonl")


def _corpus_files(path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and _is_corpus_file(file)
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        if inside:
            return inside
        raise InputError("The folder holds no corpus file.", got=str(path), expected=_KINDS)
    if not path.exists():
        raise InputError("The corpus is missing.", got=str(path), expected="a file or folder")
    if not _is_corpus_file(path):
        raise InputError("That type of file is not a corpus.", got=str(path), expected=_KINDS)
    return [path]


def _json_rows(path: Path) -> Iterator[tuple[str, str | None]]:
    for number, record in read_json_lines(path):
        title = record.get("title")
        text = text_field(record, "text", path=path, number=number)
        yield text, title if isinstance(title, str) else None


def _documents(rows: Iterable[tuple[str, str | None]], source: str) -> Iterator[CorpusDocument]:
    for text, title in rows:
        if text.strip():
            yield CorpusDocument(text=text, source=source, title=title)
