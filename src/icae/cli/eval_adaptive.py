"""`icae eval adaptive`: what adaptive ratios hold against fixed ones."""

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
    shares,
    whole_numbers,
)
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported

Lengths = Annotated[
    str, typer.Option("--lengths", metavar="N,N,...", help="Context lengths in tokens.")
]

MinFidelities = Annotated[
    str,
    typer.Option(
        "--min-fidelities",
        metavar="F,F,...",
        help="Fidelities that every span must reach, without refinement; - for none.",
    ),
]

Budgets = Annotated[
    str,
    typer.Option(
        "--budgets",
        metavar="X,X,...",
        help="Decoder positions allowed, as shares of the context tokens; - for none.",
    ),
]

Refined = Annotated[
    str,
    typer.Option(
        "--refined",
        metavar="F,F,...",
        help="Fidelities that every span must reach, with refinement; - for none.",
    ),
]

Steps = Annotated[
    int, typer.Option("--steps", min=1, metavar="N", help="Most refinement steps at one ratio.")
]


@reported
def adaptive(
    texts: Texts,
    lengths: Lengths = "128",
    ratios: Ratios = "2,4,8",
    min_fidelities: MinFidelities = "0.4,0.5,0.6,0.7,0.8,0.9",
    budgets: Budgets = "0.2,0.25,0.35,0.5,0.7",
    refined: Refined = "-",
    steps: Steps = 60,
    samples: Samples = 8,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Measure fidelity and next-token loss against decoder positions, adaptive and fixed.

    Every policy gets the same contexts. A run that was stopped goes on where it was, and
    one with more policies measures only these.
    """
    from icae.evals import AdaptiveSettings

    settings = AdaptiveSettings(
        lengths=whole_numbers(lengths, "--lengths"),
        ratios=ratio_numbers(ratios),
        min_fidelities=shares(min_fidelities, "--min-fidelities"),
        budgets=shares(budgets, "--budgets"),
        refined=shares(refined, "--refined"),
        steps=steps,
        samples=samples,
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
