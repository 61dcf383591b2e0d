"""Running an experiment: texts in, result files out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import icae
from icae.api import Icae
from icae.checkout import commit
from icae.evaluation.contexts import Windows, draw_windows, read_documents
from icae.evaluation.experiment import Cell, Column, Experiment, Row, Settings
from icae.evaluation.metadata import data_hashes, hardware, model_record
from icae.evaluation.metrics import LEVEL, RESAMPLES, bleu_signature
from icae.evaluation.pages import result_page
from icae.evaluation.plots import plot, require_matplotlib
from icae.evaluation.report import SCHEMA, Report, ReportFile
from icae.evaluation.tables import markdown

Progress = Callable[[int, int], None]
"""Called with (work done, work in all), in tokens that go through the model."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A complete result.

    Attributes:
        payload: The JSON object of the result file.
        rows: Its rows.
        columns: Columns of its table.
        files: The files written: JSON, Markdown, PNG, and HTML where there are exhibits.
        notes: How to read it.
    """

    payload: dict[str, Any]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


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
    """Run an experiment and write ``<name>.json``, ``.md`` and ``.png``; or ``.html``, too.

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
    signature = bleu_signature()
    windows = draw_windows(
        read_documents(texts, engine.tokenizer),
        size=settings.window,
        samples=settings.samples,
        seed=settings.seed,
    )
    experiment = settings.build(engine, windows.windows)
    head = _head(engine, texts, settings, windows) | {"bleu": signature, "command": command}
    suffixes = (".json", ".md", ".png", *((".html",) if settings.exhibits else ()))
    file = ReportFile(folder=folder, name=settings.name, suffixes=suffixes)
    stored = file.resume(head, experiment.cells(), replace=replace)
    report = _measure(experiment, stored, file, on_progress)
    file.save(report)
    _write_pages(file, report, experiment, settings)
    return Finished(
        payload=report.payload(),
        rows=report.rows,
        columns=experiment.columns,
        files=tuple(file.beside(suffix) for suffix in file.suffixes),
        notes=experiment.notes,
    )


def _write_pages(
    file: ReportFile, report: Report, experiment: Experiment, settings: Settings
) -> None:
    """Write what people read of a result."""
    page = markdown(report.head, report.rows, experiment.columns, experiment.notes)
    file.write(".md", page.encode())
    picture = plot(report.rows, experiment.panels, title=settings.title)
    file.write(".png", picture)
    if settings.exhibits:
        html = result_page(
            report.head,
            report.rows,
            experiment.columns,
            experiment.notes,
            picture=picture,
            exhibits=settings.exhibits,
        )
        file.write(".html", html.encode())


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
        report = report.with_cell(cell, _keyed(cell, rows), seconds=seconds, commit=code)
        file.save(report)
        done += experiment.cost(cell)
        on_progress(done, total)
    return report.finished(cells)


def _keyed(cell: Cell, rows: Sequence[Row]) -> list[Row]:
    text = {} if cell.text is None else {"text": cell.text}
    return [{"length": cell.length, "ratio": cell.ratio, **text, **row} for row in rows]


class _Ticker:
    """Turns the work inside a cell into progress of the whole run."""

    def __init__(self, cost: int, before: int, total: int, on_progress: Progress) -> None:
        self.cost, self.before, self.total, self.inside = cost, before, total, 0
        self.on_progress = on_progress

    def tick(self, tokens: int) -> None:
        """Add work; a cell never counts for more than its cost."""
        self.inside = min(self.cost, self.inside + tokens)
        self.on_progress(self.before + self.inside, self.total)


def _head(
    engine: Icae, texts: Sequence[Path], settings: Settings, windows: Windows
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "experiment": settings.name,
        "title": settings.title,
        "icae": icae.__version__,
        "commit": commit(),
        **model_record(engine),
        "data": data_hashes(texts),
        "documents": windows.documents,
        "overlapping_windows": windows.overlapping,
        "seed": settings.seed,
        "lengths": list(settings.lengths),
        "ratios": list(settings.ratios),
        "settings": dict(settings.fixed()),
        "intervals": f"{LEVEL:.0%} percentile bootstrap over contexts, {RESAMPLES} resamples",
        "hardware": hardware(engine.runtime.model.device),
    }
