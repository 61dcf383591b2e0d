"""`icae eval slots`: which slot holds which part of a text."""

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

Lengths = Annotated[
    str | None,
    typer.Option(
        "--lengths",
        metavar="N,N,...",
        help="Context lengths in tokens.",
        show_default="the adapter's span length",
    ),
]

Examples = Annotated[
    int, typer.Option("--examples", min=0, metavar="N", help="Contexts shown in the HTML page.")
]


@reported
def slots(
    texts: Texts,
    lengths: Lengths = None,
    ratios: Ratios = "4",
    samples: Samples = 16,
    examples: Examples = 2,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Replace each slot by the mean slot and measure what every context token loses.

    Gives a heat map (PNG), the shaded text (HTML) and a locality score: the share of the
    changes that falls on the slot's own chunk. A run that was stopped goes on where it was.
    """
    chosen = whole_numbers(lengths, "--lengths") if lengths else None
    wanted = ratio_numbers(ratios)
    from icae.evals import SlotsSettings

    return run_experiment(
        texts,
        lambda span_length: SlotsSettings(
            lengths=chosen or (span_length,),
            ratios=wanted,
            samples=samples,
            examples=min(examples, samples),
            seed=seed,
        ),
        output=output,
        replace=force,
        adapter=adapter,
        base=base,
        device=device,
        dtype=dtype,
    )
