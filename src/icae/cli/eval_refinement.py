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
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported


@reported
def refinement(
    texts: Texts,
    lengths: Annotated[
        str,
        typer.Option(
            "--lengths",
            metavar="N,N,...",
            help="Span lengths in tokens, at most the adapter's span length.",
        ),
    ] = "32",
    ratios: Ratios = "4,8,16",
    starts: Annotated[
        str,
        typer.Option(
            "--starts",
            metavar="S,S,...",
            help="What the slots are refined from: encoder, chunk-means (the mean input "
            "embedding of each slot's chunk), noise.",
        ),
    ] = "encoder,chunk-means,noise",
    steps: Annotated[
        int, typer.Option("--steps", min=1, metavar="N", help="Optimiser steps for each span.")
    ] = 60,
    every: Annotated[
        int, typer.Option("--every", min=1, metavar="N", help="Steps between two rows.")
    ] = 10,
    samples: Samples = 8,
    greedy: Greedy = 8,
    kl: Annotated[
        float,
        typer.Option(
            "--kl",
            min=0.0,
            metavar="W",
            help="Weight of the KL divergence from the decoder that reads the span; 0 refines "
            "for writing back alone.",
        ),
    ] = 1.0,
    learning_rate: Annotated[
        float,
        typer.Option(
            "--learning-rate",
            metavar="X",
            help="Adam learning rate as a share of the RMS of the input embeddings.",
        ),
    ] = 0.3,
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

    Each span is refined from every start and at every ratio for the same number of steps.
    Beside the fidelity stand greedy text and the loss of the true next tokens, before and
    after, and the seconds it took. Figures come with 95 % bootstrap intervals. A run that was
    stopped goes on where it was.
    """
    chosen, wanted = whole_numbers(lengths, "--lengths"), ratio_numbers(ratios)
    from icae.evaluation import RefinementSettings

    settings = RefinementSettings(
        lengths=chosen,
        ratios=wanted,
        starts=tuple(dict.fromkeys(start.strip() for start in starts.split(","))),
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
