"""`icae eval all`, `compare` and `judge`: what is made of experiments and their results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.eval_common import (
    Replace,
    ResultFolder,
    command_line,
    kept_when_stopped,
    print_table,
    shown,
)
from icae.cli.names import split_names
from icae.cli.options import ModelOptions
from icae.cli.progress import eta_progress, time_text
from icae.errors import ConfigError

if TYPE_CHECKING:
    from icae.evals.compare import Comparison
    from icae.evals.suite import SuiteFinished

MEANINGS = {
    "measure": "not the same measurement, so differences are not between the models alone",
    "model": "what is compared",
    "making": "should not matter",
}

KeyVariable = Annotated[
    str,
    typer.Option("--api-key-env", metavar="NAME", help="Environment variable with the key."),
]


@command
def all_experiments(
    *,
    texts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TEXTS]", help="Held-out corpus files or folders.", show_default=False
        ),
    ] = None,
    questions: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Triplet files for icae eval qa.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Small numbers: 10 minutes on two CPU cores.")
    ] = False,
    full: Annotated[bool, typer.Option(help="What a paper would print; needs a GPU.")] = False,
    judge_url: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible judge of answers.")
    ] = None,
    judge_model: Annotated[str, typer.Option(metavar="NAME", help="Its model.")] = "",
    key_variable: KeyVariable = "OPENAI_API_KEY",
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Experiments to run.", show_default="all"),
    ] = None,
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
    if quick and full:
        raise ConfigError("Choose one of --quick and --full.")
    from icae.evals.judge import JudgeService
    from icae.evals.suite import Suite, run_suite

    suite = Suite(
        texts=tuple(texts or ()),
        questions=tuple(questions or ()),
        scale="full" if full else "quick",
        judge=None if judge_url is None else JudgeService(url=judge_url, model=judge_model),
        api_key=os.environ.get(key_variable, ""),
        only=None if only is None else split_names(only),
    )
    icae = model.load()
    with kept_when_stopped(output):
        finished = run_suite(
            icae,
            suite,
            folder=output,
            command=command_line(),
            replace=force,
            on_part=lambda name: eta_progress(f"Measuring {name}"),
        )
    payload = {**finished.payload, "files": [str(path) for path in finished.files]}
    return Outcome(payload=payload, show=lambda: _show_suite(finished))


def _show_suite(finished: SuiteFinished) -> None:
    """Print what became of every experiment, and the files of the report."""
    console.print_figures(
        {
            part.name: f"skipped: {part.reason}"
            if part.took is None
            else f"done in {time_text(part.took)}"
            for part in finished.parts
        }
    )
    for path in finished.files:
        console.results().print(str(path), soft_wrap=True)


@command
def compare(
    *,
    first: Annotated[Path, typer.Argument(metavar="A.json", help="Result of icae eval.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Result to set beside it.")],
    only: Annotated[
        str | None,
        typer.Option(metavar="KEY,KEY,...", help="Figures to show.", show_default="all"),
    ] = None,
) -> Outcome:
    """Compare two results of one experiment: what differs in their making, and every figure.

    Changes are B less A, with 95 % intervals: paired over contexts where both measured the
    same ones, else joined from both intervals. A star marks a change whose interval leaves
    out 0. No model is loaded.
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


@command
def judge(
    *,
    first: Annotated[
        Path,
        typer.Argument(metavar="FIRST", help="Result of icae eval qa, or answers as JSON lines."),
    ],
    second: Annotated[
        Path, typer.Argument(metavar="SECOND", help="What they are set against; may be the same.")
    ],
    judge_url: Annotated[
        str, typer.Option(metavar="URL", help="Base URL of an OpenAI-compatible judge.")
    ],
    judge_model: Annotated[str, typer.Option(metavar="NAME", help="Its model.")],
    first_reads: Annotated[
        str, typer.Option(metavar="NAME", help="Whose answers of FIRST.")
    ] = "memory",
    second_reads: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Whose answers of SECOND.",
            show_default="full context, or as --first-reads in another file",
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(min=1.0, metavar="R", help="Ratio, where there are several."),
    ] = None,
    triplets: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Triplets with the contexts, to show the judge."),
    ] = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Seconds for one reply.")
    ] = 60.0,
    attempts: Annotated[int, typer.Option(min=1, metavar="N", help="Attempts for one reply.")] = 3,
    max_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most tokens of one reply.")
    ] = 512,
    parallel: Annotated[int, typer.Option(min=1, metavar="N", help="Requests in flight.")] = 4,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Replies kept.", show_default="DIR/judge-replies.jsonl"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Bootstrap seed.")] = 0,
    output: ResultFolder = Path("eval"),
) -> Outcome:
    """Judge two sets of answers to the same questions, each question in both orders.

    For example memory against full context (the same qa result twice), slots against a summary
    of equal length (--second-reads "own summary"), or two adapters (two qa results). A reply
    without a verdict, or none at all, is counted apart and never as a loss. Replies are kept,
    so a run that was stopped goes on where it was.
    """
    from icae.evals.judge import JudgeService, OpenAiJudge
    from icae.evals.judging import Judging, judge_answers, read_answers, read_contexts

    against = second_reads or ("full context" if first == second else first_reads)
    service = JudgeService(
        url=judge_url, model=judge_model, timeout=timeout, attempts=attempts, max_tokens=max_tokens
    )
    judging = Judging(
        first=read_answers(first, reads=first_reads, ratio=ratio),
        second=read_answers(second, reads=against, ratio=ratio),
        contexts=read_contexts(triplets or []),
        service=service,
        cache=cache or output / "judge-replies.jsonl",
        seed=seed,
        together=parallel,
    )
    with eta_progress("Judging") as progress:
        finished = judge_answers(
            judging,
            OpenAiJudge(service, os.environ.get(key_variable, "")),
            folder=output,
            command=command_line(),
            on_progress=progress,
        )
    return shown(finished)
