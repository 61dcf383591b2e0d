"""`icae eval all` and `compare`: all experiments in one report, two results side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.eval_common import (
    KeyVariable,
    Name,
    Replace,
    command_line,
    judge_service,
    kept_when_stopped,
)
from icae.cli.options import ModelOptions, split_names
from icae.errors import ConfigError

Texts = Annotated[list[Path] | None, typer.Argument(metavar="[TEXTS]", show_default=False)]
ReportFolder = Annotated[
    Path, typer.Option("--out", "--output", "-o", metavar="DIR", help="Folder of the report.")
]

MISSING = 6
"""Rows that only one result has, as far as they are shown."""

MEANINGS = {
    "measure": "not the same measurement, so not of the models alone",
    "model": "what is compared",
    "making": "should not matter",
}


@command
def all_experiments(
    *,
    texts: Texts = None,
    questions: Annotated[list[Path] | None, typer.Option(metavar="FILE")] = None,
    quick: bool = False,
    full: bool = False,
    judge_url: Annotated[str | None, typer.Option(metavar="URL")] = None,
    judge_model: Name = "",
    key_variable: KeyVariable = "OPENAI_API_KEY",
    only: Annotated[str | None, typer.Option(metavar="NAME,...", show_default="all")] = None,
    output: ReportFolder = Path("report"),
    force: Replace = False,
    model: ModelOptions,
) -> Outcome:
    """Run every experiment and write one report: HTML that stands alone, Markdown and JSON.

    Quick unless --full is given. An experiment that lacks its data or a package is skipped,
    with the reason in the report. A run that was stopped goes on where it was.

    Args:
        texts: Held-out corpus files or folders.
        questions: Triplet files for icae eval qa.
        quick: Small numbers: 10 minutes on two CPU cores.
        full: What a paper would print; needs a GPU.
        judge_url: OpenAI-compatible judge of answers.
        judge_model: Its model.
        only: Experiments to run.
    """
    if quick and full:
        raise ConfigError("Choose one of --quick and --full.")
    from icae.evals.suite import Suite

    suite = Suite(
        texts=tuple(texts or ()),
        questions=tuple(questions or ()),
        scale="full" if full else "quick",
        judge=judge_service(judge_url, judge_model, key_variable) if judge_url else None,
        only=None if only is None else split_names(only),
        folder=output,
        command=command_line(),
        replace=force,
        on_part=lambda name: console.progress(f"Measuring {name}"),
    )
    engine = model.load()
    with kept_when_stopped(output):
        finished = suite.run(engine)
    payload = {**finished.payload, "files": [str(path) for path in finished.files]}
    return Outcome(payload=payload, show=lambda: _show_report(payload))


def _show_report(report: Mapping[str, Any]) -> None:
    """Print what became of every experiment, and the files of the report."""
    console.print_figures(
        {
            part["name"]: f"done in {console.time_text(part['seconds'])}"
            if part["status"] == "done"
            else f"skipped: {part['reason']}"
            for part in report["parts"]
        }
    )
    for path in report["files"]:
        console.results().print(path, soft_wrap=True)


@command
def compare(
    *,
    first: Annotated[Path, typer.Argument(metavar="A.json")],
    second: Annotated[Path, typer.Argument(metavar="B.json")],
    only: Annotated[str | None, typer.Option(metavar="KEY,KEY,...", show_default="all")] = None,
) -> Outcome:
    """Compare two results of one experiment: what differs in their making, and every figure.

    Changes are B less A, with 95 % intervals: paired over contexts where both measured the
    same ones, else joined from both (~). The verdict is higher or lower where the interval
    leaves out 0; figures that are equal are left out. No model is loaded.

    Args:
        first: Result of icae eval.
        second: Result to set beside it.
        only: Figures to show.
    """
    from icae.evals import compare as comparing

    result = comparing.compare(
        comparing.read_result(first),
        comparing.read_result(second),
        only=None if only is None else split_names(only),
    )

    def show() -> None:
        out = console.results()
        for mismatch in result["mismatches"]:
            key, meaning = mismatch["key"], MEANINGS[mismatch["meaning"]]
            out.print(f"{key} differs ({meaning}):", soft_wrap=True)
            out.print(f"  A  {mismatch['first']}\n  B  {mismatch['second']}", soft_wrap=True)
        missing, found = result["missing"], result["differences"]
        for line in missing[:MISSING]:
            out.print(line, soft_wrap=True)
        if len(missing) > MISSING:
            out.print(f"... and {len(missing) - MISSING} more rows that only one has")
        changed = [one for one in found if any(one["change"].values())]
        clear = sum(one["clear"] for one in changed)
        out.print(f"{len(changed)} of {len(found)} figures changed, {clear} of them clearly.")
        if changed:
            out.print("\n".join(comparing.lines(changed)), soft_wrap=True)

    return Outcome(payload=result, show=show)
