"""Data files as rows: JSON lines, plain or compressed, and Parquet; and files written whole.

Nothing is held in memory but the row being read (of Parquet, a batch of rows). Parquet needs
pyarrow (the ``data`` extra).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

from icae.config.atomic_write import write_atomically
from icae.config.extras import import_extra
from icae.errors import InputError

COMPRESSIONS = (".xz", ".gz", ".zst")

Bytes = lzma.LZMAFile | gzip.GzipFile | io.BufferedReader

_DAMAGED = (lzma.LZMAError, zlib.error, zstandard.ZstdError, EOFError, gzip.BadGzipFile)
_PARQUET_BATCH = 256
_TEXT_TYPES = ("string", "large_string", "string_view")


@contextmanager
def open_bytes(path: Path) -> Iterator[Bytes]:
    """Open a file for reading; .xz, .gz and .zst are decompressed on the way.

    Raises:
        InputError: If the file is missing, unreadable or damaged, also while it is read.
    """
    try:
        with _open(path) as data:
            yield data
    except _DAMAGED as error:
        raise _unreadable(path, f"damaged archive: {error}", "a complete archive") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), "a readable file") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _open(path: Path) -> Bytes:
    if path.suffix == ".xz":
        return lzma.open(path)
    if path.suffix == ".gz":
        return gzip.open(path)
    return io.BufferedReader(_ZstdFile(path)) if path.suffix == ".zst" else path.open("rb")


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file as `open_bytes` does; a byte-order mark is dropped.

    Raises:
        InputError: As `open_bytes`; if it is not UTF-8, also while it is read.
    """
    try:
        with open_bytes(path) as data, io.TextIOWrapper(data, encoding="utf-8-sig") as text:
            yield text
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"not UTF-8 ({error.reason})", "UTF-8 text") from error


class _ZstdFile(io.RawIOBase):
    """Zstandard frames as plain bytes; unlike `zstandard.open`, a cut frame is an error."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._pieces = self._decompressed()
        self._ready = b""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._ready and (piece := next(self._pieces, None)) is not None:
            self._ready = piece
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _decompressed(self) -> Iterator[bytes]:
        frame = None
        while data := (frame.unused_data if frame else b"") or self._file.read(1 << 16):
            if frame is None or frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(data)
        if frame is not None and not frame.eof:
            raise EOFError("it ends inside a Zstandard frame")


def read_json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Stream ``(line number from 1, object)`` of a .jsonl file, plain or compressed.

    Blank lines are skipped.

    Raises:
        InputError: If the file cannot be read, or a line is not a JSON object.
    """
    expected = "one JSON object on each line"
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise bad_line(path, number, f"{error}", expected) from error
            if not isinstance(record, dict):
                raise bad_line(path, number, f"a {type(record).__name__}", expected)
            yield number, record


def bad_line(path: Path, number: int, got: str, expected: str) -> InputError:
    """The error for one line (or row) of a data file, to be raised by the caller."""
    return InputError(
        f"Line {number} of {path} cannot be used.",
        got=got,
        expected=expected,
        fix="correct or remove that line",
    )


def text_field(record: Mapping[str, Any], name: str, *, path: Path, number: int) -> str:
    """Field of a row that must be there and be text.

    Raises:
        InputError: If it is not; names the file and the line number given.
    """
    value = record.get(name)
    if not isinstance(value, str):
        got = f"{name} is a {type(value).__name__}" if name in record else f"no field {name!r}"
        raise bad_line(path, number, got, f"a field {name!r} with text")
    return value


def read_text_columns(path: Path) -> Iterator[tuple[str, str | None]]:
    """Stream ``(text, title or None)`` of the rows of a Parquet file whose text is not null.

    No other column is read.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
        InputError: If the file cannot be read or has no column ``text`` of strings.
    """
    with _parquet_file(path) as file:
        texts = [one.name for one in file.schema_arrow if str(one.type) in _TEXT_TYPES]
        if "text" not in texts:
            raise InputError(
                f"{path} has no text.",
                got=f"columns {', '.join(file.schema_arrow.names) or 'none'}",
                expected="a column 'text' of strings",
                fix="rename or convert that column",
            )
        columns = [name for name in ("text", "title") if name in texts]
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH, columns=columns):
            for row in batch.to_pylist():
                if row["text"] is not None:
                    yield row["text"], row.get("title")


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Stream ``(row number from 1, column -> value)`` of a Parquet file, nulls left out.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
        InputError: If the file cannot be read.
    """
    number = 0
    with _parquet_file(path) as file:
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: value for name, value in row.items() if value is not None}


def row_count(path: Path) -> int:
    """Rows of a Parquet file, from its footer; raises as `read_rows`."""
    with _parquet_file(path) as file:
        return int(file.metadata.num_rows)


def read_row_range(
    path: Path, first: int, count: int, *, columns: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Stream ``count`` rows of a Parquet file from row ``first`` on (the first is 0).

    Only the row groups that hold them are read, and of those only the columns named, as far
    as they are there; raises as `read_rows`.
    """
    with _parquet_file(path) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        start = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            low, high = max(first - start, 0), min(first + count - start, size)
            if low < high:
                table = file.read_row_group(group, columns=there)
                yield from table.slice(low, high - low).to_pylist()
            start += size


def table_bytes(rows: Sequence[Mapping[str, Any]], types: Mapping[str, str] | None = None) -> bytes:
    """A Parquet file in memory, compressed; the same rows give the same bytes.

    ``types`` has the name of the Arrow type of each column, in order; None: as in the rows.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
    """
    parquet, pyarrow = _import("pyarrow.parquet"), _import("pyarrow")
    fields = [(name, pyarrow.type_for_alias(alias)) for name, alias in (types or {}).items()]
    schema = pyarrow.schema(fields) if fields else None
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(
        pyarrow.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd"
    )
    return bytes(sink.getvalue())


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file that appears complete or not at all, and is on disk when this returns.

    One that exists is replaced; text is written as UTF-8.

    Raises:
        InputError: If it cannot be written.
    """
    try:
        write_atomically(path, [data.encode("utf-8") if isinstance(data, str) else data])
    except OSError as error:
        raise InputError(
            "The file cannot be written.", got=f"{path}: {error.strerror or error}"
        ) from error


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    """Open a Parquet file; errors while it is read are turned into InputError too."""
    parquet, pyarrow = _import("pyarrow.parquet"), _import("pyarrow")
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        got = " ".join(str(error).split())[:200]
        raise _unreadable(path, got, "a complete Parquet file") from error


def _import(module: str) -> Any:
    return import_extra(module, purpose="A Parquet file", extra="data")


def _unreadable(path: Path, got: str, expected: str) -> InputError:
    return InputError(f"{path} cannot be read.", got=got, expected=expected)
