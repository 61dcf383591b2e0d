"""`icae eval all`: every experiment, one report."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli import console, engine
from icae.cli.eval_run import Replace
from icae.cli.names import split_names
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported
from icae.cli.progress import eta_progress, time_text
from icae.errors import ConfigError

if TYPE_CHECKING:
    from icae.evals.suite import SuiteFinished
    from icae.evals.suite_report import Part


OptionalTexts = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[TEXTS]", help="Held-out corpus files or folders.", show_default=False),
]

Questions = Annotated[
    list[Path] | None,
    typer.Option("--questions", metavar="FILE", help="Triplet files for icae eval qa."),
]

Quick = Annotated[bool, typer.Option("--quick", help="Small numbers: 10 minutes on two CPU cores.")]

FullScale = Annotated[bool, typer.Option("--full", help="What a paper would print; needs a GPU.")]

JudgeUrl = Annotated[
    str | None,
    typer.Option("--judge-url", metavar="URL", help="OpenAI-compatible judge of answers."),
]

JudgeModel = Annotated[str, typer.Option("--judge-model", metavar="NAME", help="Its model.")]

KeyVariable = Annotated[
    str,
    typer.Option("--api-key-env", metavar="NAME", help="Environment variable with the key."),
]

OnlyNames = Annotated[
    str | None,
    typer.Option("--only", metavar="NAME,...", help="Experiments to run.", show_default="all"),
]

ReportFolder = Annotated[
    Path, typer.Option("--out", "--output", "-o", metavar="DIR", help="Folder of the report.")
]


@reported
def all_experiments(
    texts: OptionalTexts = None,
    questions: Questions = None,
    quick: Quick = False,
    full: FullScale = False,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = "",
    key_variable: KeyVariable = "OPENAI_API_KEY",
    only: OnlyNames = None,
    output: ReportFolder = Path("report"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Run every experiment and write one report: HTML that stands alone, Markdown and JSON.

    Quick unless --full is given. An experiment that lacks its data or a package is skipped,
    with the reason in the report. A run that was stopped goes on where it was.
    """
    if quick and full:
        raise ConfigError("Choose one of --quick and --full.")
    from icae.evals.judge_client import JudgeService
    from icae.evals.suite import SuiteRun

    names = None if only is None else split_names(only)
    run = SuiteRun(
        texts=tuple(texts or ()),
        questions=tuple(questions or ()),
        scale="full" if full else "quick",
        judge=None if judge_url is None else JudgeService(url=judge_url, model=judge_model),
        api_key=os.environ.get(key_variable, ""),
        only=names,
    )
    with console.status("Loading the model"):
        icae = engine.open_engine(adapter=adapter, base=base, device=device, dtype=dtype)
    try:
        finished = engine.run_suite(
            icae,
            run,
            folder=output,
            command=shlex.join(["icae", *sys.argv[1:]]),
            replace=force,
            on_part=lambda name: eta_progress(f"Measuring {name}"),
        )
    except KeyboardInterrupt:
        console.note(f"What was measured is kept in {output}; the same command goes on from there.")
        raise
    payload = {**finished.payload, "files": [str(path) for path in finished.files]}
    return Outcome(payload=payload, show=lambda: _show(finished))


def _show(finished: SuiteFinished) -> None:
    """Print what became of every experiment, and the files of the report."""
    lines = {}
    for part in finished.parts:
        skipped = part.took is None
        lines[part.name] = f"skipped: {part.reason}" if skipped else f"done in {_time(part)}"
    console.print_figures(lines)
    for path in finished.files:
        console.results().print(str(path), soft_wrap=True)


def _time(part: Part) -> str:
    return time_text(part.took or 0.0)
