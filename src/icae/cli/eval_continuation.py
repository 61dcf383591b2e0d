"""`icae eval continuation`: how well slots stand for the text that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icae.cli.eval_run import (
    Lengths,
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


@reported
def continuation(
    texts: Texts,
    lengths: Lengths = None,
    ratios: Ratios = "2,4,8,16",
    tokens: Annotated[
        int,
        typer.Option("--tokens", min=1, metavar="N", help="Scored tokens of the continuation."),
    ] = 128,
    samples: Samples = 64,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Measure the perplexity of the true next tokens behind a context and behind its slots.

    Beside the full context and the slots stand no context at all and as many of the last raw
    tokens as there are slots; the same tokens are scored in every row. Figures come with 95 %
    bootstrap intervals. A run that was stopped goes on where it was.
    """
    chosen = whole_numbers(lengths, "--lengths") if lengths else None
    wanted = ratio_numbers(ratios)
    from icae.evals import ContinuationSettings, default_lengths

    return run_experiment(
        texts,
        lambda span_length: ContinuationSettings(
            lengths=chosen or default_lengths(span_length),
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
