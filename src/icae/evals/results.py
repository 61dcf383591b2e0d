"""Running an experiment cell by cell, and the files of its result.

The JSON file is written after every cell, and an equal run goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from icae.config.atomic_write import write_atomically
from icae.config.checkout import commit
from icae.engine import Engine
from icae.errors import InputError, ResultConflictError
from icae.evals.experiment import Cell, Experiment, Material, Opening
from icae.evals.metadata import data_hashes, hardware, model_record, result_head
from icae.evals.plots import Plot, picture, require_drawing
from icae.evals.tables import Row, Table

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
        opening: What the report of all experiments opens with, and its picture, if anything.
    """

    payload: dict[str, Any]
    tables: tuple[Table, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    picture: bytes = b""
    opening: tuple[Opening, bytes] | None = None

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
    payload = files.resume(head, cells, replace=replace)
    _measure(experiment, material, cells, payload, files, on_progress)
    for key in ("cells", "rows"):
        payload[key] = [one for cell in cells for one in payload[key] if _is(one, cell)]
    payload["complete"] = True
    tables = [Table(payload["rows"], experiment.columns)]
    compared = experiment.compared(material, payload["rows"])
    if compared is not None:
        tables.append(compared)
        payload |= {"comparisons": list(compared.rows)} if compared.rows else {}
    verdict = experiment.verdict(payload["rows"])
    payload |= {"verdict": verdict} if verdict else {}
    done = files.finish(payload, tables, experiment.remarks(material), experiment.plots)
    return done if experiment.opening is None else files.opened(done, experiment.opening)


def _measure(
    experiment: Experiment,
    material: Material,
    cells: Sequence[Cell],
    payload: dict[str, Any],
    files: ResultFiles,
    on_progress: Progress,
) -> None:
    """Measure the cells that a result lacks, saving it after each."""
    missing = [cell for cell in cells if not _has(payload, cell)]
    total, done, code = sum(map(_work, missing)), 0, commit()
    for cell in missing:
        begin = time.perf_counter()
        rows = experiment.measure(material, cell, payload["rows"])
        named = {k: v for k, v in asdict(cell).items() if v is not None or k == "ratio"}
        payload["rows"] += [{**named, **row} for row in rows]
        seconds = round(time.perf_counter() - begin, 3)
        machine = {"commit": code, "hardware": payload["hardware"]}
        payload["cells"].append({**asdict(cell), "seconds": seconds, **machine})
        payload["seconds"] = round(sum(record["seconds"] for record in payload["cells"]), 3)
        files.save(payload)
        done += _work(cell)
        on_progress(done, total)


def _work(cell: Cell) -> int:
    return max(1, cell.length) * (cell.batch or 1)


def _is(record: Mapping[str, Any], cell: Cell) -> bool:
    return all(record.get(key) == value for key, value in asdict(cell).items())


def _has(payload: Mapping[str, Any], cell: Cell) -> bool:
    """Whether a cell was measured."""
    return any(_is(record, cell) for record in payload["cells"])


def unmeasured(head: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object of a result that has no row yet."""
    return {**head, "complete": False, "seconds": 0, "cells": [], "rows": []}


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

    def resume(
        self, head: Mapping[str, Any], wanted: Sequence[Cell], *, replace: bool
    ) -> dict[str, Any]:
        """What an equal run has already measured.

        Args:
            head: What makes this run.
            wanted: Its cells.
            replace: Start anew where the file is of another run.

        Returns:
            The JSON object of the file, or one without cells. A stored result that lacks nothing
            keeps its own head, so that writing it again changes nothing.

        Raises:
            ResultConflictError: If the file is of another run, or holds cells that this one
                does not ask for.
        """
        new = unmeasured(head)
        if not self.path(".json").exists():
            return new
        try:
            stored = self._read()
            self._require_same(stored, head, wanted)
        except ResultConflictError:
            if replace:
                return new
            raise
        if all(_has(stored, cell) for cell in wanted):
            return stored
        return {**new, "cells": stored["cells"], "rows": stored["rows"]}

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

    def opened(self, finished: Finished, opening: Opening) -> Finished:
        """The same with the picture that the report opens with, in a file of its own.

        Raises:
            InputError: If it cannot be written.
        """
        drawn = picture(finished.rows, opening.plots, title=opening.title)
        path = replace(self, name=opening.name).write(".png", drawn)
        return replace(finished, files=(*finished.files, path), opening=(opening, drawn))

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

    def _read(self) -> dict[str, Any]:
        try:
            stored = json.loads(self.path(".json").read_text(encoding="utf-8"))
            stored.pop("comparisons", None)  # worked out anew
            lists = {key: [dict(one) for one in stored[key]] for key in ("cells", "rows")}
            return {**stored, "complete": stored["complete"], **lists}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._conflict("something else", "a result of icae eval") from error

    def _require_same(
        self, stored: Mapping[str, Any], head: Mapping[str, Any], wanted: Sequence[Cell]
    ) -> None:
        current = json.loads(json.dumps({key: head[key] for key in IDENTITY}))
        for key, value in current.items():
            if stored.get(key) != value:
                raise self._conflict(f"{key} {stored.get(key)}", f"{key} {value}")
        extra = [r for r in stored["cells"] if not any(_is(r, cell) for cell in wanted)]
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
    verdict = [head["verdict"], ""] if head.get("verdict") else []
    lines = [f"# {title}", "", *verdict, f"![{title}]({head['experiment']}.png)", ""]
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
