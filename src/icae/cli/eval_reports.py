"""`icae eval all` and `compare`: all experiments in one report, two results side by side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.eval_common import (
    KeyVariable,
    Name,
    Replace,
    command_line,
    kept_when_stopped,
    print_table,
)
from icae.cli.options import ModelOptions, split_names
from icae.errors import ConfigError

if TYPE_CHECKING:
    from icae.evals.compare import Comparison
    from icae.evals.suite import Suite, SuiteFinished

MEANINGS = {
    "measure": "not the same measurement, so differences are not between the models alone",
    "model": "what is compared",
    "making": "should not matter",
}


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """What is measured, on what, and who judges.

    Attributes:
        texts: Held-out corpus files or folders.
        questions: Triplet files for icae eval qa.
        quick: Small numbers: 10 minutes on two CPU cores.
        full: What a paper would print; needs a GPU.
        judge_url: OpenAI-compatible judge of answers.
        judge_model: Its model.
        only: Experiments to run.
    """

    texts: Annotated[list[Path] | None, typer.Argument(metavar="[TEXTS]", show_default=False)] = (
        None
    )
    questions: Annotated[list[Path] | None, typer.Option(metavar="FILE")] = None
    quick: bool = False
    full: bool = False
    judge_url: Annotated[str | None, typer.Option(metavar="URL")] = None
    judge_model: Name = ""
    key_variable: KeyVariable = "OPENAI_API_KEY"
    only: Annotated[str | None, typer.Option(metavar="NAME,...", show_default="all")] = None

    def suite(self) -> Suite:
        """The suite.

        Raises:
            ConfigError: If both scales are asked for, or the judge is out of range.
            InputError: If there is no such experiment.
        """
        if self.quick and self.full:
            raise ConfigError("Choose one of --quick and --full.")
        from icae.evals.judge import JudgeService
        from icae.evals.suite import Suite

        judged = self.judge_url is not None
        return Suite(
            texts=tuple(self.texts or ()),
            questions=tuple(self.questions or ()),
            scale="full" if self.full else "quick",
            judge=JudgeService(url=self.judge_url or "", model=self.judge_model)
            if judged
            else None,
            api_key=os.environ.get(self.key_variable, ""),
            only=None if self.only is None else split_names(self.only),
        )


@command
def all_experiments(
    *,
    wanted: SuiteOptions,
    output: Annotated[
        Path, typer.Option("--out", "--output", "-o", metavar="DIR", help="Folder of the report.")
    ] = Path("report"),
    force: Replace = False,
    model: ModelOptions,
) -> Outcome:
    """Run every experiment and write one report: HTML that stands alone, Markdown and JSON.

    Quick unless --full is given. An experiment that lacks its data or a package is skipped,
    with the reason in the report. A run that was stopped goes on where it was.
    """
    asked = wanted.suite()
    from icae.evals import suite

    icae = model.load()
    with kept_when_stopped(output):
        finished = suite.run_suite(
            icae,
            asked,
            folder=output,
            command=command_line(),
            replace=force,
            on_part=lambda name: console.progress(f"Measuring {name}"),
        )
    payload = {**finished.payload, "files": [str(path) for path in finished.files]}
    return Outcome(payload=payload, show=lambda: _show_suite(finished))


def _show_suite(finished: SuiteFinished) -> None:
    """Print what became of every experiment, and the files of the report."""
    console.print_figures(
        {
            part.name: f"skipped: {part.reason}"
            if part.took is None
            else f"done in {console.time_text(part.took)}"
            for part in finished.parts
        }
    )
    for path in finished.files:
        console.results().print(str(path), soft_wrap=True)


@command
def compare(
    *,
    first: Annotated[Path, typer.Argument(metavar="A.json")],
    second: Annotated[Path, typer.Argument(metavar="B.json")],
    only: Annotated[str | None, typer.Option(metavar="KEY,KEY,...", show_default="all")] = None,
) -> Outcome:
    """Compare two results of one experiment: what differs in their making, and every figure.

    Changes are B less A, with 95 % intervals: paired over contexts where both measured the
    same ones, else joined from both intervals. A star marks a change whose interval leaves
    out 0. No model is loaded.

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
    payload = {
        "experiment": result.experiment,
        "comparable": result.comparable,
        "mismatches": result.mismatches,
        "differences": result.differences,
        "missing": result.missing,
    }
    return Outcome(payload=payload, show=lambda: _show_comparison(result))


def _show_comparison(result: Comparison) -> None:
    out = console.results()
    for mismatch in result.mismatches:
        key, meaning = mismatch["key"], MEANINGS[mismatch["meaning"]]
        out.print(f"{key} differs ({meaning}):", soft_wrap=True)
        out.print(f"  A  {mismatch['first']}\n  B  {mismatch['second']}", soft_wrap=True)
    for line in result.missing:
        out.print(line, soft_wrap=True)
    table = result.table()
    print_table([column.title for column in table.filled], table.texts())
