"""`icae eval rivals`: the memory beside other ways to shorten a context."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icae.cli.eval_qa import AnswerLimit, MaxContext, Questions, Seed, Triplets
from icae.cli.eval_run import (
    Greedy,
    Ratios,
    Replace,
    ResultFolder,
    Samples,
    ratio_numbers,
    run_experiment,
    whole_numbers,
)
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported

if TYPE_CHECKING:
    from icae.evals import RivalTextSettings

Trained = Annotated[
    list[Path] | None,
    typer.Option(
        "--trained",
        metavar="DIR",
        help="Folder of a trained rival: GIST or AutoCompressor, of a run with "
        "objective.reader: gist or autocompressor. May be given several times.",
    ),
]

Texts = Annotated[
    list[Path] | None,
    typer.Option(
        "--texts",
        metavar="PATH",
        help="Held-out corpus file or folder: the memory and the trained rivals also write it "
        "back and go on from it. May be given several times.",
    ),
]

TextLengths = Annotated[
    str,
    typer.Option("--lengths", metavar="N,N,...", help="Context lengths of --texts in tokens."),
]


@reported
def rivals(
    triplets: Triplets,
    ratios: Ratios = "4",
    questions: Questions = 100,
    trained: Trained = None,
    texts: Texts = None,
    lengths: TextLengths = "32,64",
    samples: Samples = 64,
    greedy: Greedy = 16,
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

    All read with the same frozen decoder; full and no context stand beside them, and GIST and
    AutoCompressor with --trained. Loss on the reference answer, F1, BLEU-4, tokens in the
    decoder, their key-value cache and seconds; with --texts also how much of held-out text is
    written back. A rival whose package is not installed is named with the reason. A run that
    was stopped goes on where it was.
    """
    from icae.evals import RivalsSettings

    settings = RivalsSettings(
        ratios=ratio_numbers(ratios),
        questions=questions or None,
        max_new_tokens=max_new_tokens,
        max_context=max_context,
        trained=tuple(trained or ()),
        texts=_held_out(texts, lengths, samples, greedy),
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


def _held_out(
    texts: list[Path] | None, lengths: str, samples: int, greedy: int
) -> RivalTextSettings | None:
    """What is measured of held-out text, if any was named."""
    from icae.evals import RivalTextSettings

    if not texts:
        return None
    return RivalTextSettings(
        paths=tuple(texts),
        lengths=whole_numbers(lengths, "--lengths"),
        samples=samples,
        greedy=greedy,
    )
