"""A result and its files: written after every cell, taken up again by an equal run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from icae.errors import InputError, ResultConflictError
from icae.evals.experiment import Cell
from icae.evals.plots import Plot, picture
from icae.evals.tables import Row, Table
from icae.memory.atomic_write import write_atomically

SCHEMA = 1
"""Version of the result files."""

IDENTITY = ("schema", "experiment", "icae", "adapter", "base", "dtype", "data", "seed", "settings")
"""What must be equal for rows of two runs to stand in one file."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A result, complete or not.

    Attributes:
        head: What made it. Holds the keys of `IDENTITY` and others.
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

    def with_cell(self, cell: Cell, rows: Sequence[Row], made: Mapping[str, Any]) -> Result:
        """The result with one more cell.

        Args:
            cell: The cell.
            rows: Its rows.
            made: Seconds, commit and hardware: they may differ from cell to cell.
        """
        record = {**asdict(cell), **made}
        return replace(self, cells=(*self.cells, record), rows=(*self.rows, *rows), complete=False)

    def in_order(self, cells: Sequence[Cell]) -> Result:
        """The result with its rows in the order of the cells, complete."""
        records = tuple(r for cell in cells for r in self.cells if _is(r, cell))
        rows = tuple(row for cell in cells for row in self.rows if _is(row, cell))
        return Result(head=self.head, cells=records, rows=rows, complete=True)

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
class Finished:
    """A complete result as it is shown.

    Attributes:
        payload: The JSON object of the result file.
        tables: Its tables.
        files: The files written: JSON, Markdown, PNG.
        notes: How to read the tables.
        picture: Its plots, a PNG file.
    """

    payload: dict[str, Any]
    tables: tuple[Table, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    picture: bytes = b""

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that were measured."""
        return self.tables[0].rows


@dataclass(frozen=True, kw_only=True)
class ResultFiles:
    """Where a result is kept.

    Attributes:
        folder: The folder; made when first written to.
        name: Name of the experiment.
    """

    folder: Path
    name: str

    def path(self, suffix: str) -> Path:
        """The file of that suffix."""
        return self.folder / f"{self.name}{suffix}"

    def resume(self, head: Mapping[str, Any], wanted: Sequence[Cell], *, replace: bool) -> Result:
        """What an equal run has already measured.

        Args:
            head: What makes this run.
            wanted: Its cells.
            replace: Start anew where the file is of another run.

        Returns:
            The stored result, or an empty one. A stored result that lacks nothing keeps
            its own head, so that writing it again changes nothing.

        Raises:
            ResultConflictError: If the file is of another run, or holds cells that this one
                does not ask for.
        """
        if not self.path(".json").exists():
            return Result(head=head)
        try:
            stored = self._read()
            self._require_same(stored.head, head)
            self._require_wanted(stored, wanted)
        except InputError:
            if replace:
                return Result(head=head)
            raise
        if all(stored.has(cell) for cell in wanted):
            return stored
        return Result(head=head, cells=stored.cells, rows=stored.rows)

    def save(self, result: Result) -> None:
        """Write the JSON file so that a kill leaves the old one or the new one.

        Raises:
            InputError: If it cannot be written.
        """
        self.write(".json", _json_text(result.payload()).encode())

    def finish(
        self, result: Result, tables: Sequence[Table], notes: Sequence[str], plots: Sequence[Plot]
    ) -> Finished:
        """Write all files of a complete result.

        Args:
            result: The result.
            tables: What is shown of it.
            notes: How to read them.
            plots: What is drawn of its rows.

        Raises:
            InputError: If one cannot be written.
        """
        self.save(result)
        said = (*notes, f"Figures in brackets: {result.head['intervals']}.")
        drawn = picture(result.rows, plots, title=str(result.head["title"]))
        self.write(".md", _markdown(result.head, tables, said).encode())
        self.write(".png", drawn)
        return Finished(
            payload=result.payload(),
            tables=tuple(tables),
            files=tuple(self.path(suffix) for suffix in (".json", ".md", ".png")),
            notes=said,
            picture=drawn,
        )

    def write(self, suffix: str, content: bytes) -> Path:
        """Write one of the files, atomically.

        Raises:
            InputError: If it cannot be written.
        """
        path = self.path(suffix)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, [content])
        except OSError as error:
            raise InputError(
                "The result cannot be written.",
                got=f"{path}: {error.strerror}",
                fix="Name another folder with --output.",
            ) from error
        return path

    def _read(self) -> Result:
        try:
            raw = json.loads(self.path(".json").read_text(encoding="utf-8"))
            raw.pop("comparisons", None)  # worked out anew
            body = {key: raw.pop(key) for key in ("complete", "seconds", "cells", "rows")}
            return Result(
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

    def _require_wanted(self, stored: Result, wanted: Sequence[Cell]) -> None:
        extra = [r for r in stored.cells if not any(_is(r, cell) for cell in wanted)]
        if extra:
            known = {f.name for f in fields(Cell)}
            cell = Cell(**{key: value for key, value in extra[0].items() if key in known})
            raise self._conflict(f"a cell of {cell}", "no other cells than asked for")

    def _conflict(self, got: str, expected: str) -> ResultConflictError:
        return ResultConflictError(
            f"{self.path('.json')} holds the result of another run.",
            got=got,
            expected=expected,
            fix="Name another folder with --output, or replace the result with --force.",
        )


def _json_text(payload: Mapping[str, Any]) -> str:
    """A result as JSON text: indented, but each cell and row on one line."""
    listed = [key for key in ("cells", "rows", "comparisons") if key in payload]
    head = {key: value for key, value in payload.items() if key not in listed}
    text = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    for key in listed:
        lines = [json.dumps(r, ensure_ascii=False, allow_nan=False) for r in payload[key]]
        inside = "".join(f"\n    {line}," for line in lines).removesuffix(",")
        text += f',\n  "{key}": [{inside}' + ("\n  ]" if lines else "]")
    return text + "\n}\n"


def _markdown(head: Mapping[str, Any], tables: Sequence[Table], notes: Sequence[str]) -> str:
    title = head["title"]
    lines = [f"# {title}", "", f"![{title}]({head['experiment']}.png)", ""]
    lines += [table.markdown() for table in tables]
    lines += [f"- {note}" for note in notes]
    return "\n".join([*lines, "", f"`{head['command']}`", "", made_by(head), ""])


def made_by(head: Mapping[str, Any]) -> str:
    """Code, model or judge, data and machine behind a result, as one sentence."""
    code = f"icae {head['icae']}, commit {head['commit'] or 'unknown'}"
    if "judge" in head:
        judge = head["judge"]
        return (
            f"{code}; judge {judge['model']} at {judge['url']}, prompt version "
            f"{judge['prompt']}; answers {_files([head['first'], head['second']])}; "
            f"{head['without_partner']} answers without a partner left out; seed {head['seed']}."
        )
    adapter, base = head["adapter"], head["base"]
    return (
        f"{code}; adapter {adapter['name']} ({adapter['hash'][:12]}) on {base['name']} "
        f"({base['hash'][:12]}), {head['dtype']}; seed {head['seed']}; "
        f"texts {_files(head['data'])}; {head['hardware']}."
    )


def _files(read: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{d['file']} ({(d['sha256'] or 'unhashed')[:12]})" for d in read)
