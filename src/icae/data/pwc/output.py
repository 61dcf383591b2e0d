"""The files of a PWC build: triplets of both sides, rejections, datasheet."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from icae.data.pwc.dataset import PwcDataset, PwcTriplet
from icae.data.pwc.selection import Side
from icae.data.rows import table_bytes
from icae.errors import InputError

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class PwcFiles:
    """Where the files of a build lie: all beside the training triplets.

    Attributes:
        train: Training triplets, .jsonl or .parquet; names the others.
    """

    train: Path

    def __post_init__(self) -> None:
        if self.train.suffix not in SUFFIXES:
            raise InputError(
                "That type of file cannot be written.",
                got=str(self.train),
                expected="a name that ends in .jsonl or .parquet",
            )

    @property
    def test(self) -> Path:
        """Test triplets."""
        return self.train.with_name(f"{self.train.stem}.test{self.train.suffix}")

    @property
    def rejected(self) -> Path:
        """Rejections, JSON lines."""
        return self.train.with_name(f"{self.train.stem}.rejected.jsonl")

    @property
    def journal(self) -> Path:
        """Every reply that was paid for."""
        return self.train.with_name(f"{self.train.stem}.journal.jsonl")

    @property
    def datasheet(self) -> Path:
        """What the data set is and how it was made, Markdown."""
        return self.train.with_name(f"{self.train.stem}.datasheet.md")

    def of(self, side: Side) -> Path:
        """Triplets of a side."""
        return {"train": self.train, "test": self.test}[side]

    def save(self, dataset: PwcDataset) -> None:
        """Write triplets and rejections; each file appears whole or not at all.

        Args:
            dataset: What to write. A side without triplets has no file.

        Raises:
            InputError: If a file cannot be written.
            MissingDependencyError: If Parquet is wanted and pyarrow is not installed.
        """
        write = {".jsonl": _write_json_lines, ".parquet": _write_parquet}[self.train.suffix]
        for side, triplets in dataset.sides.items():
            if triplets:
                _whole(self.of(side), functools.partial(write, triplets))
            else:
                self.of(side).unlink(missing_ok=True)
        _whole(self.rejected, functools.partial(_write_json_lines, dataset.rejections))


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    _whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            "The file cannot be written.", got=f"{path}: {error.strerror or error}"
        ) from error


def _write_json_lines(rows: Iterable[Any], path: Path) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def _write_parquet(rows: Iterable[PwcTriplet], path: Path) -> None:
    path.write_bytes(table_bytes([asdict(row) for row in rows]))
