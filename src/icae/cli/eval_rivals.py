"""`icae eval rivals`: the memory beside other ways to shorten a context."""

from __future__ import annotations

from pathlib import Path

from icae.cli.eval_qa import AnswerLimit, MaxContext, Questions, Seed, Triplets
from icae.cli.eval_run import Ratios, Replace, ResultFolder, ratio_numbers, run_experiment
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported


@reported
def rivals(
    triplets: Triplets,
    ratios: Ratios = "4",
    questions: Questions = 100,
    max_new_tokens: AnswerLimit = 64,
    max_context: MaxContext = None,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Set the memory beside truncation, a summary, LLMLingua and kvpress, at equal positions.

    All read with the same frozen decoder; full and no context stand beside them. Loss on the
    reference answer, F1, BLEU-4, tokens in the decoder, their key-value cache and seconds. A
    rival whose package is not installed is named with the reason. A run that was stopped goes
    on where it was.
    """
    from icae.evaluation import RivalsSettings

    settings = RivalsSettings(
        ratios=ratio_numbers(ratios),
        questions=questions or None,
        max_new_tokens=max_new_tokens,
        max_context=max_context,
        seed=seed,
    )
    return run_experiment(
        triplets,
        lambda span_length: settings,
        output=output,
        replace=force,
        adapter=adapter,
        base=base,
        device=device,
        dtype=dtype,
    )
