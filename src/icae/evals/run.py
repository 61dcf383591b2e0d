"""Running an experiment: texts in, result files out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import icae
from icae.config.checkout import commit
from icae.engine import Icae
from icae.evals.experiment import Cell, Experiment, Row, Settings
from icae.evals.metadata import data_hashes, hardware, model_record
from icae.evals.metrics import LEVEL, RESAMPLES
from icae.evals.pages import result_page, result_section
from icae.evals.plots import plot, require_matplotlib
from icae.evals.report import SCHEMA, Report, ReportFile
from icae.evals.tables import Table, markdown

Progress = Callable[[int, int], None]
"""Called with (work done, work in all), in tokens that go through the model."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A complete result.

    Attributes:
        payload: The JSON object of the result file.
        tables: Its tables.
        files: The files written: JSON, Markdown, PNG, and HTML where there are exhibits.
        section: The result as a piece of HTML, without its headline.
    """

    payload: dict[str, Any]
    tables: tuple[Table, ...]
    files: tuple[Path, ...]
    section: str = ""

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that were measured."""
        return self.tables[0].rows


def evaluate(
    engine: Icae,
    texts: Sequence[Path],
    settings: Settings,
    *,
    folder: Path,
    command: str,
    replace: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> Finished:
    """Run an experiment and write ``<name>.json``, ``.md`` and ``.png``, perhaps ``.html``.

    The JSON file is written after each cell; an equal run goes on where it was.

    Args:
        engine: Adapter and base model.
        texts: Held-out corpus files or folders.
        settings: The experiment.
        folder: Where the files go.
        command: The command line, for the record.
        replace: Replace a result of other settings in that folder.
        on_progress: Called as the work goes on; cells taken over are not counted.

    Raises:
        InputError: If texts, lengths or folder cannot be used; see `ReportFile.resume`.
        MissingDependencyError: If the `[eval]` extra is not installed.
    """
    require_matplotlib()
    prepared = settings.prepare(engine, texts)
    experiment, comparison = prepared.experiment, prepared.comparison
    head = _head(engine, texts, settings) | {**prepared.record, "command": command}
    suffixes = (".json", ".md", ".png", *((".html",) if prepared.exhibits else ()))
    file = ReportFile(folder=folder, name=settings.name, suffixes=suffixes)
    stored = file.resume(head, experiment.cells(), replace=replace)
    report = _measure(experiment, stored, file, on_progress)
    tables = [Table(rows=report.rows, columns=experiment.columns)]
    if comparison is not None:
        report = report.compared(comparison.compare(report.rows))
        tables.append(
            Table(title=comparison.title, rows=report.comparisons, columns=comparison.columns)
        )
    file.save(report)
    shown = [show(report.rows) for show in prepared.exhibits]
    section = _write_pages(file, report, experiment, tables, shown)
    return Finished(
        payload=report.payload(),
        tables=tuple(tables),
        files=tuple(file.beside(suffix) for suffix in file.suffixes),
        section=section,
    )


def _write_pages(
    file: ReportFile,
    report: Report,
    experiment: Experiment,
    tables: Sequence[Table],
    shown: Sequence[str],
) -> str:
    """Write what people read of a result; the result as a piece of HTML."""
    head, title = report.head, str(report.head["title"])
    file.write(".md", markdown(head, tables, experiment.notes).encode())
    picture = plot(report.rows, experiment.panels, title=title)
    file.write(".png", picture)
    section = result_section(head, tables, experiment.notes, picture=picture, shown=shown)
    if shown:
        file.write(".html", result_page(section, title=title).encode())
    return section


def _measure(
    experiment: Experiment, report: Report, file: ReportFile, on_progress: Progress
) -> Report:
    """Measure the cells that the report lacks, saving after each."""
    cells = experiment.cells()
    missing = [cell for cell in cells if not report.has(cell)]
    total, done, code = sum(map(experiment.cost, missing)), 0, commit()
    for cell in missing:
        begin = time.perf_counter()
        ticker = _Ticker(experiment.cost(cell), done, total, on_progress)
        rows = experiment.measure(cell, report.rows, ticker.tick)
        seconds = time.perf_counter() - begin
        report = report.with_cell(
            cell,
            _keyed(cell, rows),
            seconds=seconds,
            commit=code,
            hardware=str(report.head["hardware"]),
        )
        file.save(report)
        done += experiment.cost(cell)
        on_progress(done, total)
    return report.finished(cells)


def _keyed(cell: Cell, rows: Sequence[Row]) -> list[Row]:
    named = {k: v for k, v in asdict(cell).items() if v is not None or k == "ratio"}
    return [{**named, **row} for row in rows]


class _Ticker:
    """Turns the work inside a cell into progress of the whole run."""

    def __init__(self, cost: int, before: int, total: int, on_progress: Progress) -> None:
        self.cost, self.before, self.total, self.inside = cost, before, total, 0
        self.on_progress = on_progress

    def tick(self, tokens: int) -> None:
        """Add work; a cell never counts for more than its cost."""
        self.inside = min(self.cost, self.inside + tokens)
        self.on_progress(self.before + self.inside, self.total)


def _head(engine: Icae, texts: Sequence[Path], settings: Settings) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "experiment": settings.name,
        "title": settings.title,
        "icae": icae.__version__,
        "commit": commit(),
        **model_record(engine),
        "data": data_hashes(texts),
        "seed": settings.seed,
        "settings": dict(settings.fixed()),
        "intervals": f"{LEVEL:.0%} percentile bootstrap over contexts, {RESAMPLES} resamples",
        "hardware": hardware(engine.runtime.model.device),
    }
