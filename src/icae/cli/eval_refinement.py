"""`icae eval refinement`: how faithful slots become with optimiser steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icae.cli.eval_run import (
    Greedy,
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
from icae.cli.names import split_names
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported

Lengths = Annotated[
    str,
    typer.Option(
        "--lengths",
        metavar="N,N,...",
        help="Span lengths in tokens, at most the adapter's span length.",
    ),
]

Starts = Annotated[
    str,
    typer.Option(
        "--starts",
        metavar="S,S,...",
        help="What the slots are refined from: encoder, chunk-means (the mean input embedding "
        "of each slot's chunk), noise.",
    ),
]

Steps = Annotated[
    int, typer.Option("--steps", min=1, metavar="N", help="Optimiser steps for each span.")
]

Every = Annotated[int, typer.Option("--every", min=1, metavar="N", help="Steps between two rows.")]

KlWeight = Annotated[
    float,
    typer.Option(
        "--kl",
        min=0.0,
        metavar="W",
        help="Weight of the KL divergence from the decoder that reads the span; 0 refines for "
        "writing back alone.",
    ),
]

LearningRate = Annotated[
    float,
    typer.Option(
        "--learning-rate",
        metavar="X",
        help="Adam learning rate as a share of the RMS of the input embeddings.",
    ),
]


@reported
def refinement(
    texts: Texts,
    lengths: Lengths = "32",
    ratios: Ratios = "4,8,16",
    starts: Starts = "encoder,chunk-means,noise",
    steps: Steps = 60,
    every: Every = 10,
    samples: Samples = 8,
    greedy: Greedy = 8,
    kl: KlWeight = 1.0,
    learning_rate: LearningRate = 0.08,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Measure how fidelity grows while the slots of single spans are refined.

    Every start and ratio gets the same spans and steps; greedy text and the loss of the true
    next tokens are measured before and after. A run that was stopped goes on where it was.
    """
    from icae.evals import RefinementSettings

    settings = RefinementSettings(
        lengths=whole_numbers(lengths, "--lengths"),
        ratios=ratio_numbers(ratios),
        starts=split_names(starts),
        steps=steps,
        every=every,
        samples=samples,
        greedy=min(greedy, samples),
        kl=kl,
        learning_rate=learning_rate,
        seed=seed,
    )
    return run_experiment(
        texts,
        lambda span_length: settings,
        output=output,
        replace=force,
        adapter=adapter,
        base=base,
        device=device,
        dtype=dtype,
    )
