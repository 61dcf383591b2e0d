"""`icae eval compare`: two results of one experiment side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from icae.cli import console
from icae.cli.names import split_names
from icae.cli.options import AsJson
from icae.cli.outcome import Outcome, reported

if TYPE_CHECKING:
    from icae.evals.compare import Comparison

MEANINGS = {
    "measure": "not the same measurement, so differences are not between the models alone",
    "model": "what is compared",
    "making": "should not matter",
}


@reported
def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="Result of icae eval.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Result to set beside it.")],
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="KEY,KEY,...", help="Figures to show.", show_default="all"),
    ] = None,
    as_json: AsJson = False,
) -> Outcome:
    """Compare two results of one experiment: what differs in their making, and every figure.

    Changes are B less A, with 95 % intervals: paired over contexts where both measured the
    same ones, else joined from both intervals. A star marks a change whose interval leaves
    out 0. No model is loaded.
    """
    from icae.evals import compare as comparing

    result = comparing.compare(comparing.read_result(first), comparing.read_result(second))
    wanted = None if only is None else set(split_names(only))
    payload: dict[str, Any] = {
        "experiment": result.experiment,
        "comparable": not any(m.meaning == "measure" for m in result.mismatches),
        "mismatches": [asdict(m) for m in result.mismatches],
        "differences": [
            {**asdict(d), "clear": d.clear}
            for d in result.differences
            if wanted is None or d.figure in wanted
        ],
        "missing": list(result.missing),
    }
    return Outcome(payload=payload, show=lambda: _show(result, wanted))


def _show(result: Comparison, wanted: set[str] | None) -> None:
    out = console.results()
    for mismatch in result.mismatches:
        out.print(f"{mismatch.key} differs ({MEANINGS[mismatch.meaning]}):", soft_wrap=True)
        out.print(f"  A  {mismatch.first}\n  B  {mismatch.second}", soft_wrap=True)
    for line in result.missing:
        out.print(line, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for title in ("row", "figure", "A", "B", "B - A", "95 % interval", "", "interval of"):
        table.add_column(title, no_wrap=True)
    for d in result.differences:
        if wanted is None or d.figure in wanted:
            row = ", ".join(f"{key} {value}" for key, value in d.row.items())
            table.add_row(
                row,
                d.figure,
                f"{d.first.value:.4g}",
                f"{d.second.value:.4g}",
                f"{d.change.value:+.4g}",
                f"[{d.change.low:+.4g}, {d.change.high:+.4g}]",
                "*" if d.clear else "",
                "pairs" if d.paired else "both",
            )
    wide = out.measure(table, options=out.options.update(width=1000)).maximum
    out.width = max(out.width, wide)
    out.print(table)
