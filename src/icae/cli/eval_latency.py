"""`icae eval latency`: seconds and memory by batch and context length."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icae.cli.eval_run import (
    Ratios,
    Replace,
    ResultFolder,
    Seed,
    Texts,
    ratio_numbers,
    run_experiment,
)
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype
from icae.cli.outcome import Outcome, reported
from icae.errors import ConfigError

Sizes = Annotated[
    str,
    typer.Option("--sizes", metavar="BxL,...", help="Batch x context length, as 4x128."),
]

FullScale = Annotated[
    bool,
    typer.Option("--full", help="The paper's 8x512, 8x2048 and 32x512, 128 tokens written."),
]

Tokens = Annotated[
    int, typer.Option("--tokens", min=2, metavar="N", help="Tokens written in each row.")
]

Repeats = Annotated[
    int, typer.Option("--repeats", min=1, metavar="N", help="Times each is measured.")
]


@reported
def latency(
    texts: Texts,
    sizes: Sizes = "1x128,4x128,1x256,4x256",
    full: FullScale = False,
    ratios: Ratios = "4",
    tokens: Tokens = 16,
    repeats: Repeats = 3,
    seed: Seed = 0,
    output: ResultFolder = Path("eval"),
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Replace = False,
    as_json: AsJson = False,
) -> Outcome:
    """Time full context, compress + decode, and decode with the memory cached.

    Seconds, time to the first token, decoded tokens a second, key-value cache and peak memory,
    and the speed-up over the full context within the same run. A run that was stopped goes on
    where it was.
    """
    chosen, wanted = size_pairs(sizes), ratio_numbers(ratios)
    from icae.evals import LatencySettings
    from icae.evals.latency import PAPER_SIZES, PAPER_TOKENS

    settings = LatencySettings.of_sizes(
        PAPER_SIZES if full else chosen,
        ratios=wanted,
        tokens=PAPER_TOKENS if full else tokens,
        repeats=repeats,
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


def size_pairs(text: str) -> list[tuple[int, int]]:
    """(batch, length) of a list such as ``1x128,4x512``, each once, in order.

    Raises:
        ConfigError: If something else stands there.
    """
    try:
        pairs = [(int(b), int(n)) for b, n in (part.split("x") for part in text.split(","))]
    except ValueError:
        pairs = []
    if not pairs or any(batch < 1 or length < 2 for batch, length in pairs):
        raise ConfigError(
            "--sizes cannot be read.",
            got=repr(text),
            expected="batch x length, separated by commas, for example 1x128,4x512",
        )
    return list(dict.fromkeys(pairs))
