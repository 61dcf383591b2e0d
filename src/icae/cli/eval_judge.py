"""`icae eval judge`: win, lose or tie between two sets of answers, by an LLM judge."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from icae.cli import engine
from icae.cli.eval_run import ResultFolder, show_finished
from icae.cli.options import AsJson
from icae.cli.outcome import Outcome, reported
from icae.cli.progress import eta_progress

FirstFile = Annotated[
    Path,
    typer.Argument(metavar="FIRST", help="Result of icae eval qa, or answers as JSON lines."),
]

SecondFile = Annotated[
    Path, typer.Argument(metavar="SECOND", help="What they are set against; may be the same.")
]

JudgeUrl = Annotated[
    str,
    typer.Option("--judge-url", metavar="URL", help="Base URL of an OpenAI-compatible judge."),
]

FirstReads = Annotated[
    str, typer.Option("--first-reads", metavar="NAME", help="Whose answers of FIRST.")
]

SecondReads = Annotated[
    str | None,
    typer.Option(
        "--second-reads",
        metavar="NAME",
        help="Whose answers of SECOND.",
        show_default="full context, or as --first-reads in another file",
    ),
]

OneRatio = Annotated[
    float | None,
    typer.Option("--ratio", min=1.0, metavar="R", help="Ratio, where there are several."),
]

Triplets = Annotated[
    list[Path] | None,
    typer.Option(
        "--triplets", metavar="FILE", help="Triplets with the contexts, to show the judge."
    ),
]

KeyVariable = Annotated[
    str,
    typer.Option("--api-key-env", metavar="NAME", help="Environment variable with the key."),
]

Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds for one reply.")
]

Attempts = Annotated[
    int, typer.Option("--attempts", min=1, metavar="N", help="Attempts for one reply.")
]

MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=1, metavar="N", help="Most tokens of one reply.")
]

Together = Annotated[
    int, typer.Option("--parallel", min=1, metavar="N", help="Requests in flight.")
]

CacheFile = Annotated[
    Path | None,
    typer.Option(
        "--cache", metavar="FILE", help="Replies kept.", show_default="DIR/judge-replies.jsonl"
    ),
]


@reported
def judge(
    first: FirstFile,
    second: SecondFile,
    judge_url: JudgeUrl,
    judge_model: Annotated[str, typer.Option("--judge-model", metavar="NAME", help="Its model.")],
    first_reads: FirstReads = "memory",
    second_reads: SecondReads = None,
    ratio: OneRatio = None,
    triplets: Triplets = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    timeout: Timeout = 60.0,
    attempts: Attempts = 3,
    max_tokens: MaxTokens = 512,
    together: Together = 4,
    cache: CacheFile = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Bootstrap seed.")] = 0,
    output: ResultFolder = Path("eval"),
    as_json: AsJson = False,
) -> Outcome:
    """Judge two sets of answers to the same questions, each question in both orders.

    For example memory against full context (the same qa result twice), slots against a summary
    of equal length (--second-reads "own summary"), or two adapters (two qa results). A reply
    without a verdict, or none at all, is counted apart and never as a loss. Replies are kept,
    so a run that was stopped goes on where it was.
    """
    against = second_reads or ("full context" if first == second else first_reads)
    from icae.evals.answer_sets import read_answers, read_contexts
    from icae.evals.judge_client import JudgeService
    from icae.evals.judge_run import JudgeRun

    run = JudgeRun(
        first=read_answers(first, reads=first_reads, ratio=ratio),
        second=read_answers(second, reads=against, ratio=ratio),
        contexts=read_contexts(triplets or []),
        service=JudgeService(
            url=judge_url,
            model=judge_model,
            timeout=timeout,
            attempts=attempts,
            max_tokens=max_tokens,
        ),
        cache=cache or output / "judge-replies.jsonl",
        seed=seed,
        together=together,
    )
    with eta_progress("Judging") as on_progress:
        finished = engine.run_judge(
            run,
            api_key=os.environ.get(key_variable, ""),
            folder=output,
            command=shlex.join(["icae", *sys.argv[1:]]),
            on_progress=on_progress,
        )
    payload = {**finished.payload, "files": [str(path) for path in finished.files]}
    return Outcome(payload=payload, show=lambda: show_finished(finished))
