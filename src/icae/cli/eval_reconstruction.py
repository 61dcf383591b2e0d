"""`icae eval reconstruction`: what comes back of a held-out text."""

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
def reconstruction(
    texts: Texts,
    lengths: Lengths = None,
    ratios: Ratios = "2,4,8,16",
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
    """Reconstruct held-out text: AE loss, token accuracy, BLEU-4 and exact prefix.

    By length and ratio, each with a 95 % bootstrap interval, and beside them what the decoder
    does without memory and with the memory of another text. A context longer than the
    adapter's span length becomes several spans. A run that was stopped goes on where it was.
    """
    chosen = whole_numbers(lengths, "--lengths") if lengths else None
    wanted = ratio_numbers(ratios)
    from icae.evals import ReconstructionSettings, default_lengths

    return run_experiment(
        texts,
        lambda span_length: ReconstructionSettings(
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
