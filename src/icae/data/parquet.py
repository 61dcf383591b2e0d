"""Parquet files as rows, read batch by batch. Needs pyarrow (the ``data`` extra)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from icae.errors import InputError, MissingDependencyError

_ROWS = 256


def read_parquet(path: Path) -> Iterator[tuple[str, str | None]]:
    """Stream the column ``text``, and ``title`` if there is one; the others are not read.

    Args:
        path: A .parquet file.

    Yields:
        ``(text, title or None)`` for each row that has text; a null is skipped.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
        InputError: If the file cannot be read or has no column ``text`` of strings.
    """
    pyarrow, parquet = _pyarrow()
    with _reading(path, pyarrow), parquet.ParquetFile(path, pre_buffer=False) as file:
        names = file.schema_arrow.names
        if "text" not in names or not _is_text(pyarrow, file.schema_arrow.field("text")):
            raise InputError(
                f"{path} has no text.",
                got=f"columns {', '.join(names) or 'none'}",
                expected="a column 'text' of strings",
                fix="rename or convert that column",
            )
        titled = "title" in names and _is_text(pyarrow, file.schema_arrow.field("title"))
        columns = ["text", "title"] if titled else ["text"]
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
            texts = batch.column("text").to_pylist()
            titles = batch.column("title").to_pylist() if titled else [None] * len(texts)
            yield from (pair for pair in zip(texts, titles, strict=True) if pair[0] is not None)


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Stream whole rows.

    Args:
        path: A .parquet file.

    Yields:
        ``(row number from 1, column -> value)``; a null is left out of its row.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
        InputError: If the file cannot be read.
    """
    pyarrow, parquet = _pyarrow()
    number = 0
    with _reading(path, pyarrow), parquet.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: value for name, value in row.items() if value is not None}


def row_count(path: Path) -> int:
    """Rows of a file, from its footer.

    Args:
        path: A .parquet file.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
        InputError: If the file cannot be read.
    """
    pyarrow, parquet = _pyarrow()
    with _reading(path, pyarrow), parquet.ParquetFile(path, pre_buffer=False) as file:
        return int(file.metadata.num_rows)


def read_row_range(
    path: Path, first: int, count: int, *, columns: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Stream some rows; only the row groups that hold them are read.

    Args:
        path: A .parquet file.
        first: First row, from 0.
        count: How many.
        columns: Columns to read; those that are not there are left out.

    Yields:
        Column -> value for each row.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
        InputError: If the file cannot be read.
    """
    pyarrow, parquet = _pyarrow()
    with _reading(path, pyarrow), parquet.ParquetFile(path, pre_buffer=False) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        start = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            low, high = max(first - start, 0), min(first + count - start, size)
            if low < high:
                table = file.read_row_group(group, columns=there)
                yield from table.slice(low, high - low).to_pylist()
            start += size


def table_bytes(rows: Sequence[Mapping[str, Any]], types: Mapping[str, str]) -> bytes:
    """A Parquet file in memory, compressed; the same rows give the same bytes.

    Args:
        rows: Column -> value.
        types: Column -> name of its Arrow type, in the order of the columns.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    fields = [(name, pyarrow.type_for_alias(alias)) for name, alias in types.items()]
    table = pyarrow.Table.from_pylist(list(rows), schema=pyarrow.schema(fields))
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same columns, compressed.

    Args:
        path: A .parquet file; one that exists is replaced.
        rows: Column -> value, at least one row.

    Raises:
        MissingDependencyError: If pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, compression="zstd")


@contextmanager
def _reading(path: Path, pyarrow: Any) -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be read.",
            got=" ".join(str(error).split())[:200],
            expected="a complete Parquet file",
        ) from error


def _is_text(pyarrow: Any, field: Any) -> bool:
    types = pyarrow.types
    return bool(types.is_string(field.type) or types.is_large_string(field.type))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet files need pyarrow.",
            got="pyarrow is not installed",
            expected="the extra 'data'",
            fix='pip install ".[data]" in the checkout, or pip install pyarrow',
        ) from error
    return pyarrow, pyarrow.parquet
