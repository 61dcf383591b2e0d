"""`icae eval memorisation`: what goes wrong where a text is written back."""

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
    int,
    typer.Option("--examples", min=0, metavar="N", help="Contexts of each type in the HTML page."),
]


@reported
def memorisation(
    texts: Texts,
    lengths: Lengths = None,
    ratios: Ratios = "4",
    samples: Samples = 48,
    examples: Examples = 3,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Write text back from its slots, align it with the source and name every error.

    Number, name, code, like meaning, form, omission, insertion or other, by type of text,
    with examples side by side (HTML). A run that was stopped goes on where it was.
    """
    chosen = whole_numbers(lengths, "--lengths") if lengths else None
    wanted = ratio_numbers(ratios)
    from icae.evals import MemorisationSettings

    return run_experiment(
        texts,
        lambda span_length: MemorisationSettings(
            lengths=chosen or (span_length,),
            ratios=wanted,
            samples=samples,
            examples=examples,
            seed=seed,
        ),
        output=output,
        replace=force,
        adapter=adapter,
        base=base,
        device=device,
        dtype=dtype,
    )
