"""What the `icae eval` commands share: their options, progress and result."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from icae.cli import console, engine
from icae.cli.outcome import Outcome
from icae.cli.progress import eta_progress
from icae.errors import ConfigError

if TYPE_CHECKING:
    from icae.evals import Finished, Settings

Texts = Annotated[
    list[Path], typer.Argument(metavar="TEXTS", help="Held-out corpus files or folders.")
]

Lengths = Annotated[
    str | None,
    typer.Option(
        "--lengths",
        metavar="N,N,...",
        help="Context lengths in tokens.",
        show_default="100,200,300,400,500 and the adapter's span length",
    ),
]

Ratios = Annotated[
    str,
    typer.Option("--ratios", metavar="R,R,...", help="Compression ratios: context tokens a slot."),
]

Samples = Annotated[
    int, typer.Option("--samples", min=2, metavar="N", help="Contexts at each length.")
]

Greedy = Annotated[
    int,
    typer.Option(
        "--greedy", min=0, metavar="N", help="Contexts of these that are also written back freely."
    ),
]

Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Seed of the draw of contexts.")
]

ResultFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the result files.")
]

Replace = Annotated[
    bool, typer.Option("--force", help="Replace a result of other settings in that folder.")
]


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Numbers of a list such as ``100,200``, sorted, each once.

    Raises:
        ConfigError: If something else stands there.
    """
    return tuple(int(n) for n in _numbers(text, option, lambda n: n == int(n), "whole numbers"))


def ratio_numbers(text: str) -> tuple[float, ...]:
    """Compression ratios of a list such as ``2,4``, sorted, each once.

    Raises:
        ConfigError: If something else stands there.
    """
    return _numbers(text, "--ratios", lambda n: n >= 1, "ratios of at least 1")


def shares(text: str, option: str) -> tuple[float, ...]:
    """Shares (above 0, at most 1) of a list such as ``0.5,0.9``; none for ``-``.

    Raises:
        ConfigError: If something else stands there.
    """
    if text.strip() == "-":
        return ()
    return _numbers(text, option, lambda n: 0 < n <= 1, "shares above 0, at most 1")


def _numbers(
    text: str, option: str, fits: Callable[[float], bool], expected: str
) -> tuple[float, ...]:
    try:
        numbers = {float(part) for part in text.split(",")}
    except ValueError:
        numbers = {math.nan}
    if not all(math.isfinite(n) and fits(n) for n in numbers):
        raise ConfigError(
            f"{option} cannot be read.",
            got=repr(text),
            expected=f"{expected}, separated by commas",
        )
    return tuple(sorted(numbers))


def run_experiment(
    texts: list[Path],
    settings: Callable[[int], Settings],
    *,
    output: Path,
    replace: bool,
    adapter: str | None,
    base: str | None,
    device: str | None,
    dtype: str | None,
) -> Outcome:
    """Load a model, run an experiment on it and write its files.

    Args:
        texts: Held-out corpus files or folders.
        settings: The experiment, given the adapter's span length.
        output: Folder of the result files.
        replace: Replace a result of other settings there.
        adapter: Adapter folder, or None for the default.
        base: Base model, or None for the adapter's.
        device: Torch device, or None for the best found.
        dtype: Precision, or None for the device's usual one.

    Raises:
        IcaeError: If the texts, the settings or the model cannot be used.
        KeyboardInterrupt: After Ctrl-C; the finished cells are kept.
    """
    with console.status("Loading the model"):
        icae = engine.open_engine(adapter=adapter, base=base, device=device, dtype=dtype)
    wanted = settings(icae.config.span_length)
    try:
        with eta_progress(f"Measuring {wanted.name}") as on_progress:
            finished = engine.run_evaluation(
                icae,
                texts,
                wanted,
                folder=output,
                command=shlex.join(["icae", *sys.argv[1:]]),
                replace=replace,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        console.note(f"What was measured is kept in {output}; the same command goes on from there.")
        raise
    payload = {**finished.payload, "files": [str(path) for path in finished.files]}
    return Outcome(payload=payload, show=lambda: show_finished(finished))


def show_finished(finished: Finished) -> None:
    """Print the tables of a result and the names of its files."""
    from icae.evals.tables import short_cell_text, table_texts

    out = console.results()
    for made in finished.tables:
        table = Table(box=None, pad_edge=False, title=made.title, title_justify="left")
        for column in made.filled:
            table.add_column(column.title.partition(" (")[0], justify="right", no_wrap=True)
        for texts in table_texts(made.rows, made.filled, show=short_cell_text):
            table.add_row(*texts)
        wide = out.measure(table, options=out.options.update(width=1000)).maximum
        out.width = max(out.width, wide)  # a figure is never cut; a narrow terminal wraps the line
        out.print(table)
    for path in finished.files:
        out.print(str(path), soft_wrap=True)
