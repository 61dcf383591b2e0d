"""`icae eval random-text`: does the memory hold text, or only what is likely?"""

from __future__ import annotations

from pathlib import Path

from icae.cli.eval_run import (
    Greedy,
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
def random_text(
    texts: Texts,
    lengths: Lengths = None,
    ratios: Ratios = "4",
    samples: Samples = 64,
    greedy: Greedy = 16,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Reconstruct normal, patterned (each token id + 1) and random text.

    Figures come with 95 % bootstrap intervals. A run that was stopped goes on where it was.
    """
    chosen = whole_numbers(lengths, "--lengths") if lengths else None
    wanted = ratio_numbers(ratios)
    from icae.evals import RandomTextSettings, default_lengths

    return run_experiment(
        texts,
        lambda span_length: RandomTextSettings(
            lengths=chosen or default_lengths(span_length),
            ratios=wanted,
            samples=samples,
            greedy=min(greedy, samples),
            seed=seed,
        ),
        output=output,
        replace=force,
        adapter=adapter,
        base=base,
        device=device,
        dtype=dtype,
    )
