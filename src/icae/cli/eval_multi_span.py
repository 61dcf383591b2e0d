"""`icae eval multi-span`: how well many spans of slots stand for a long context."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icae.cli.eval_run import (
    Ratios,
    Replace,
    ResultFolder,
    Samples,
    Seed,
    Texts,
    ratio_numbers,
    run_experiment,
    whole_numbers,
)
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported

Spans = Annotated[
    str, typer.Option("--spans", metavar="N,N,...", help="Numbers of spans of full length.")
]

Tokens = Annotated[
    int,
    typer.Option("--tokens", min=1, metavar="N", help="Scored tokens of the continuation."),
]


@reported
def multi_span(
    texts: Texts,
    spans: Spans = "2,4,8,16",
    ratios: Ratios = "2,4,8",
    tokens: Tokens = 128,
    samples: Samples = 32,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Measure the continuation behind the slots of many spans, and what that is in raw tokens.

    Beside the perplexity behind slots, the full context and no context stands the number of
    the context's last raw tokens that would give the same perplexity as the slots. A run that
    was stopped goes on where it was.
    """
    chosen = whole_numbers(spans, "--spans")
    wanted = ratio_numbers(ratios)
    from icae.evals import MultiSpanSettings

    return run_experiment(
        texts,
        lambda span_length: MultiSpanSettings(
            lengths=tuple(n * span_length for n in chosen),
            ratios=wanted,
            tokens=tokens,
            samples=samples,
            seed=seed,
        ),
        output=output,
        replace=force,
        adapter=adapter,
        base=base,
        device=device,
        dtype=dtype,
    )
