"""A result file: written after every cell, taken up again by an equal run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from icae.errors import InputError, ResultConflictError
from icae.evals.experiment import Cell, Row
from icae.memory.atomic_write import write_atomically

SCHEMA = 1
"""Version of the result files."""

IDENTITY = ("schema", "experiment", "icae", "adapter", "base", "dtype", "data", "seed", "settings")
"""What must be equal for rows of two runs to stand in one file."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """A result, finished or not.

    Attributes:
        head: What made it; see `metadata`. Holds the keys of `IDENTITY` and others.
        cells: The cells that were measured, each with its seconds, commit and hardware.
        rows: Their rows, in the same order.
        complete: Whether every cell asked for is there.
        comparisons: Rows worked out from those of all cells.
    """

    head: Mapping[str, Any]
    cells: tuple[Mapping[str, Any], ...] = ()
    rows: tuple[Row, ...] = ()
    complete: bool = False
    comparisons: tuple[Row, ...] = ()

    def has(self, cell: Cell) -> bool:
        """Whether a cell was measured."""
        return any(_is(record, cell) for record in self.cells)

    def with_cell(
        self,
        cell: Cell,
        rows: Sequence[Row],
        *,
        seconds: float,
        commit: str | None,
        hardware: str,
    ) -> Report:
        """The report with one more cell; code and machine may differ from cell to cell."""
        made = {"seconds": round(seconds, 3), "commit": commit, "hardware": hardware}
        record = {**asdict(cell), **made}
        return Report(
            head=self.head, cells=(*self.cells, record), rows=(*self.rows, *map(dict, rows))
        )

    def finished(self, order: Sequence[Cell]) -> Report:
        """The report with its rows in the order of the cells, complete."""
        cells = tuple(r for cell in order for r in self.cells if _is(r, cell))
        rows = tuple(row for cell in order for row in self.rows if _is(row, cell))
        return Report(head=self.head, cells=cells, rows=rows, complete=True)

    def compared(self, rows: Sequence[Row]) -> Report:
        """The report with rows worked out from its own."""
        return replace(self, comparisons=tuple(rows))

    def payload(self) -> dict[str, Any]:
        """The JSON object of the file."""
        compared = {"comparisons": list(self.comparisons)} if self.comparisons else {}
        return {
            **self.head,
            "complete": self.complete,
            "seconds": round(sum(record["seconds"] for record in self.cells), 3),
            "cells": list(self.cells),
            "rows": list(self.rows),
            **compared,
        }


def _is(record: Mapping[str, Any], cell: Cell) -> bool:
    return all(record.get(key) == value for key, value in asdict(cell).items())


@dataclass(frozen=True, kw_only=True)
class ReportFile:
    """Where a report is kept.

    Attributes:
        folder: The folder; made when first written to.
        name: Name of the experiment.
    """

    folder: Path
    name: str
    suffixes: tuple[str, ...] = field(default=(".json", ".md", ".png"))

    @property
    def path(self) -> Path:
        """The JSON file."""
        return self.beside(".json")

    def beside(self, suffix: str) -> Path:
        """The file of that suffix."""
        return self.folder / f"{self.name}{suffix}"

    def resume(self, head: Mapping[str, Any], wanted: Sequence[Cell], *, replace: bool) -> Report:
        """What an equal run has already measured.

        Args:
            head: What makes this run.
            wanted: Its cells.
            replace: Start anew where the file is of another run.

        Returns:
            The stored report, or an empty one. A stored report that lacks nothing keeps
            its own head, so that writing it again changes nothing.

        Raises:
            ResultConflictError: If the file is of another run, or holds cells that this one
                does not ask for.
        """
        if not self.path.exists():
            return Report(head=head)
        try:
            stored = self._read()
            self._require_same(stored.head, head)
            self._require_wanted(stored, wanted)
        except InputError:
            if replace:
                return Report(head=head)
            raise
        if all(stored.has(cell) for cell in wanted):
            return stored
        return Report(head=head, cells=stored.cells, rows=stored.rows)

    def save(self, report: Report) -> None:
        """Write the JSON file so that a kill leaves the old one or the new one.

        Raises:
            InputError: If it cannot be written.
        """
        self.write(".json", encode(report.payload()).encode())

    def write(self, suffix: str, content: bytes) -> None:
        """Write one of the files, atomically.

        Raises:
            InputError: If it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.beside(suffix), [content])
        except OSError as error:
            raise InputError(
                "The result cannot be written.",
                got=f"{self.beside(suffix)}: {error.strerror}",
                fix="Name another folder with --output.",
            ) from error

    def _read(self) -> Report:
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            raw.pop("comparisons", None)  # worked out anew
            body = {key: raw.pop(key) for key in ("complete", "seconds", "cells", "rows")}
            return Report(
                head=raw,
                cells=tuple(dict(c) for c in body["cells"]),
                rows=tuple(dict(r) for r in body["rows"]),
                complete=bool(body["complete"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._conflict("something else", "a result of icae eval") from error

    def _require_same(self, stored: Mapping[str, Any], head: Mapping[str, Any]) -> None:
        current = json.loads(json.dumps({key: head[key] for key in IDENTITY}))
        for key in IDENTITY:
            if stored.get(key) != current[key]:
                raise self._conflict(f"{key} {stored.get(key)}", f"{key} {current[key]}")

    def _require_wanted(self, stored: Report, wanted: Sequence[Cell]) -> None:
        extra = [r for r in stored.cells if not any(_is(r, cell) for cell in wanted)]
        if extra:
            known = {f.name for f in fields(Cell)}
            cell = Cell(**{key: value for key, value in extra[0].items() if key in known})
            raise self._conflict(f"a cell of {cell}", "no other cells than asked for")

    def _conflict(self, got: str, expected: str) -> ResultConflictError:
        return ResultConflictError(
            f"{self.path} holds the result of another run.",
            got=got,
            expected=expected,
            fix="Name another folder with --output, or replace the result with --force.",
        )


def encode(payload: Mapping[str, Any]) -> str:
    """A report as JSON text: indented, but each cell and row on one line."""
    listed = [key for key in ("cells", "rows", "comparisons") if key in payload]
    head = {key: value for key, value in payload.items() if key not in listed}
    text = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    for key in listed:
        lines = [json.dumps(r, ensure_ascii=False, allow_nan=False) for r in payload[key]]
        inside = "".join(f"\n    {line}," for line in lines).removesuffix(",")
        text += f',\n  "{key}": [{inside}' + ("\n  ]" if lines else "]")
    return text + "\n}\n"
