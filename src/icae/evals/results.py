"""Running an experiment cell by cell, and the files of its result.

The JSON file is written after every cell, and an equal run goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from icae.config.checkout import commit
from icae.engine import Engine
from icae.errors import InputError, ResultConflictError
from icae.evals.experiment import Cell, Experiment, Material
from icae.evals.metadata import data_hashes, hardware, model_record, result_head
from icae.evals.plots import Plot, picture, require_drawing
from icae.evals.tables import Row, Table
from icae.memory.atomic_write import write_atomically

IDENTITY = ("schema", "experiment", "icae", "adapter", "base", "dtype", "data", "seed", "settings")
"""What must be equal for rows of two runs to stand in one file."""

Progress = Callable[[int, int], None]
"""Called with (work done, work in all); a cell counts by the length of its contexts."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A complete result as it is shown.

    Attributes:
        payload: The JSON object of the result file.
        tables: Its tables, that of the measured rows first.
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


def evaluate(
    engine: Engine,
    inputs: Sequence[Path],
    experiment: Experiment,
    *,
    folder: Path,
    command: str,
    replace: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> Finished:
    """Run an experiment and write ``<name>.json``, ``.md`` and ``.png``.

    Raises:
        ResultConflictError: If the folder holds the result of another run, or one with cells that
            this run does not ask for, and is not to be replaced.
        InputError: If inputs, lengths or folder cannot be used.
        MissingDependencyError: If the `[eval]` extra is not installed.
    """
    require_drawing()
    material = experiment.prepare(engine, inputs)
    made = {**model_record(engine), "data": data_hashes(inputs)}
    name, title, settings = experiment.name, experiment.title, experiment.fixed()
    head = {
        **result_head(name, title, made, experiment.seed, settings, "contexts"),
        "hardware": hardware(engine.runtime.model.device),
        **material.record,
        "command": command,
    }
    files = ResultFiles(folder=folder, name=name)
    cells = experiment.cells(material)
    result = files.resume(head, cells, replace=replace)
    _measure(
        experiment, material, [c for c in cells if not result.has(c)], result, files, on_progress
    )
    result = result.in_order(cells)
    payload, tables = result.payload(complete=True), [Table(result.rows, experiment.columns)]
    compared = experiment.compared(material, result.rows)
    if compared is not None:
        tables.append(compared)
        payload |= {"comparisons": list(compared.rows)} if compared.rows else {}
    return files.finish(payload, tables, experiment.remarks(material), experiment.plots)


def _measure(
    experiment: Experiment,
    material: Material,
    cells: Sequence[Cell],
    result: Result,
    files: ResultFiles,
    on_progress: Progress,
) -> None:
    """Measure the cells that a result lacks, saving it after each."""
    total, done, code = sum(map(_work, cells)), 0, commit()
    for cell in cells:
        begin = time.perf_counter()
        rows = experiment.measure(material, cell, result.rows)
        named = {k: v for k, v in asdict(cell).items() if v is not None or k == "ratio"}
        result.rows.extend({**named, **row} for row in rows)
        seconds = round(time.perf_counter() - begin, 3)
        machine = {"commit": code, "hardware": result.head["hardware"]}
        result.cells.append({**asdict(cell), "seconds": seconds, **machine})
        files.save(result.payload(complete=False))
        done += _work(cell)
        on_progress(done, total)


def _work(cell: Cell) -> int:
    return max(1, cell.length) * (cell.batch or 1)


def _is(record: Mapping[str, Any], cell: Cell) -> bool:
    return all(record.get(key) == value for key, value in asdict(cell).items())


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured so far.

    Attributes:
        head: What made it. Holds the keys of `IDENTITY` and others.
        cells: The cells that were measured, each with its seconds, commit and hardware.
        rows: Their rows, in the same order.
    """

    head: Mapping[str, Any]
    cells: list[Mapping[str, Any]]
    rows: list[Row]

    def has(self, cell: Cell) -> bool:
        """Whether a cell was measured."""
        return any(_is(record, cell) for record in self.cells)

    def in_order(self, cells: Sequence[Cell]) -> Result:
        """The same in the order of some cells."""
        return Result(
            head=self.head,
            cells=[record for cell in cells for record in self.cells if _is(record, cell)],
            rows=[row for cell in cells for row in self.rows if _is(row, cell)],
        )

    def payload(self, *, complete: bool) -> dict[str, Any]:
        """The JSON object of the file."""
        return {
            **self.head,
            "complete": complete,
            "seconds": round(sum(record["seconds"] for record in self.cells), 3),
            "cells": self.cells,
            "rows": self.rows,
        }


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
        new = Result(head=head, cells=[], rows=[])
        if not self.path(".json").exists():
            return new
        try:
            stored = self._read()
            self._require_same(stored, head, wanted)
        except ResultConflictError:
            if replace:
                return new
            raise
        if all(stored.has(cell) for cell in wanted):
            return stored
        return Result(head=head, cells=stored.cells, rows=stored.rows)

    def save(self, payload: Mapping[str, Any]) -> None:
        """Write the JSON file: indented, but each cell and row on one line.

        Raises:
            InputError: If it cannot be written.
        """
        listed = [key for key in ("cells", "rows", "comparisons") if key in payload]
        head = {key: value for key, value in payload.items() if key not in listed}
        text = json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        for key in listed:
            lines = [json.dumps(r, ensure_ascii=False, allow_nan=False) for r in payload[key]]
            inside = "".join(f"\n    {line}," for line in lines).removesuffix(",")
            text += f',\n  "{key}": [{inside}' + ("\n  ]" if lines else "]")
        self.write(".json", f"{text}\n}}\n".encode())

    def finish(
        self,
        payload: dict[str, Any],
        tables: Sequence[Table],
        notes: Sequence[str],
        plots: Sequence[Plot],
    ) -> Finished:
        """Write all files of a complete result.

        Args:
            payload: Its JSON object.
            tables: What is shown of it.
            notes: How to read them.
            plots: What is drawn of its rows.

        Raises:
            InputError: If one cannot be written.
        """
        self.save(payload)
        said = (*notes, f"Figures in brackets: {payload['intervals']}.")
        drawn = picture(payload["rows"], plots, title=str(payload["title"]))
        self.write(".md", _markdown(payload, tables, said).encode())
        self.write(".png", drawn)
        return Finished(
            payload=payload,
            tables=tuple(tables),
            files=tuple(self.path(suffix) for suffix in (".json", ".md", ".png")),
            notes=said,
            picture=drawn,
        )

    def write(self, suffix: str, content: bytes) -> Path:
        """Write one of the files, so that a kill leaves the old one or the new one.

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
            head = json.loads(self.path(".json").read_text(encoding="utf-8"))
            head.pop("comparisons", None)  # worked out anew, as are these:
            cells, rows, _, _ = (head.pop(k) for k in ("cells", "rows", "complete", "seconds"))
            return Result(head=head, cells=[dict(c) for c in cells], rows=[dict(r) for r in rows])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._conflict("something else", "a result of icae eval") from error

    def _require_same(
        self, stored: Result, head: Mapping[str, Any], wanted: Sequence[Cell]
    ) -> None:
        current = json.loads(json.dumps({key: head[key] for key in IDENTITY}))
        for key, value in current.items():
            if stored.head.get(key) != value:
                raise self._conflict(f"{key} {stored.head.get(key)}", f"{key} {value}")
        extra = [r for r in stored.cells if not any(_is(r, cell) for cell in wanted)]
        if extra:
            cell = Cell(**{f.name: extra[0][f.name] for f in fields(Cell) if f.name in extra[0]})
            raise self._conflict(f"a cell of {cell}", "no other cells than asked for")

    def _conflict(self, got: str, expected: str) -> ResultConflictError:
        return ResultConflictError(
            f"{self.path('.json')} holds the result of another run.",
            got=got,
            expected=expected,
            fix="Name another folder with --output, or replace the result with --force.",
        )


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
