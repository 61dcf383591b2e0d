"""Running an experiment: texts in, result files out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import icae
from icae.config.checkout import commit
from icae.engine import Engine
from icae.evals.bootstrap import LEVEL, RESAMPLES
from icae.evals.experiment import Cell, Experiment, On
from icae.evals.metadata import data_hashes, hardware, model_record
from icae.evals.plots import require_drawing
from icae.evals.results import SCHEMA, Finished, Result, ResultFiles
from icae.evals.tables import Row, Table

Progress = Callable[[int, int], None]
"""Called with (work done, work in all); a cell counts by the length of its contexts."""


def evaluate(
    engine: Engine,
    inputs: Sequence[Path],
    experiment: Experiment[On],
    *,
    folder: Path,
    command: str,
    replace: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> Finished:
    """Run an experiment and write ``<name>.json``, ``.md`` and ``.png``.

    The JSON file is written after each cell; an equal run goes on where it was.

    Raises:
        InputError: If inputs, lengths or folder cannot be used; see `ResultFiles.resume`.
        MissingDependencyError: If the `[eval]` extra is not installed.
    """
    require_drawing()
    material = experiment.prepare(engine, inputs)
    head = _head(engine, inputs, experiment) | {**material.record, "command": command}
    files = ResultFiles(folder=folder, name=experiment.name)
    stored = files.resume(head, experiment.cells(material), replace=replace)
    result = _measured(experiment, material, stored, files, on_progress)
    tables = [Table(rows=result.rows, columns=experiment.columns)]
    compared = experiment.compared(material, result.rows)
    if compared is not None:
        result = dataclasses.replace(result, comparisons=tuple(compared.rows))
        tables.append(compared)
    return files.finish(result, tables, experiment.remarks(material), experiment.plots)


def _measured(
    experiment: Experiment[On],
    material: On,
    result: Result,
    files: ResultFiles,
    on_progress: Progress,
) -> Result:
    """Measure the cells that a result lacks, saving after each."""
    cells = experiment.cells(material)
    missing = [cell for cell in cells if not result.has(cell)]
    total, done, code = sum(map(_work, missing)), 0, commit()
    for cell in missing:
        begin = time.perf_counter()
        rows = experiment.measure(material, cell, result.rows)
        made = {
            "seconds": round(time.perf_counter() - begin, 3),
            "commit": code,
            "hardware": result.head["hardware"],
        }
        result = result.with_cell(cell, [_keyed(cell, row) for row in rows], made)
        files.save(result)
        done += _work(cell)
        on_progress(done, total)
    return result.in_order(cells)


def _work(cell: Cell) -> int:
    return max(1, cell.length) * (cell.batch or 1)


def _keyed(cell: Cell, row: Row) -> Row:
    named = {k: v for k, v in asdict(cell).items() if v is not None or k == "ratio"}
    return {**named, **row}


def _head(engine: Engine, inputs: Sequence[Path], experiment: Experiment[On]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "experiment": experiment.name,
        "title": experiment.title,
        "icae": icae.__version__,
        "commit": commit(),
        **model_record(engine),
        "data": data_hashes(inputs),
        "seed": experiment.seed,
        "settings": experiment.fixed(),
        "intervals": f"{LEVEL:.0%} percentile bootstrap over contexts, {RESAMPLES} resamples",
        "hardware": hardware(engine.runtime.model.device),
    }
