"""What the `icae eval` commands share: their options, progress and result."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table as RichTable

from icae.cli import console
from icae.cli.command import Outcome
from icae.cli.options import ModelOptions
from icae.errors import ConfigError

if TYPE_CHECKING:
    from icae.evals import Experiment, Finished

Texts = Annotated[
    list[Path], typer.Argument(metavar="TEXTS", help="Held-out corpus files or folders.")
]
Numbers = Annotated[str, typer.Option(metavar="N,N,...")]
Name = Annotated[str, typer.Option(metavar="NAME")]
Shares = Annotated[str, typer.Option(metavar="F,F,...")]
Count = Annotated[int, typer.Option(min=1, metavar="N")]
Lengths = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="Context lengths in tokens.",
        show_default="100,200,300,400,500 and the adapter's span length",
    ),
]
SpanLengths = Annotated[
    str | None,
    typer.Option(
        metavar="N,N,...",
        help="Context lengths in tokens.",
        show_default="the adapter's span length",
    ),
]
Ratios = Annotated[
    str, typer.Option(metavar="R,R,...", help="Compression ratios: context tokens a slot.")
]
Samples = Annotated[int, typer.Option(min=2, metavar="N", help="Contexts at each length.")]
Greedy = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Contexts of these that are also written back freely."),
]
Examples = Annotated[
    int, typer.Option(min=0, metavar="N", help="Contexts shown in the result file.")
]
Triplets = Annotated[
    list[Path],
    typer.Argument(
        metavar="TRIPLETS",
        help="Files of (context, prompt, answer) triplets as JSON lines, also under xz, gz or "
        "zst, or folders of them. Each file is one data set.",
    ),
]
ResultFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the result files.")
]
Replace = Annotated[
    bool, typer.Option("--force", help="Replace a result of other settings in that folder.")
]
Questions = Annotated[
    int, typer.Option(min=0, metavar="N", help="Questions drawn from each file; 0 asks all.")
]

KeyVariable = Annotated[
    str,
    typer.Option("--api-key-env", metavar="NAME", help="Environment variable with the key."),
]


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """What a question and its answer may take.

    Attributes:
        max_new_tokens: Longest answer in tokens.
        max_context: Leave out questions about longer contexts (tokens); they are counted.
    """

    max_new_tokens: Count = 64
    max_context: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default="what the decoder's window holds"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The draw, and where the result goes."""

    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the draw.")] = 0
    output: ResultFolder = Path("eval")
    force: Replace = False

    def measured(
        self,
        model: ModelOptions,
        inputs: list[Path],
        experiment: Experiment[Any] | Callable[[int], Experiment[Any]],
    ) -> Outcome:
        """Load a model, run an experiment on it and write its files.

        Args:
            model: The model.
            inputs: Held-out corpus files or folders, or triplet files.
            experiment: The experiment; or what makes it for the adapter's span length.

        Raises:
            IcaeError: If the texts, the settings or the model cannot be used.
            KeyboardInterrupt: After Ctrl-C; the finished cells are kept.
        """
        from icae import evals

        icae = model.load()
        wanted = experiment(icae.config.span_length) if callable(experiment) else experiment
        with (
            kept_when_stopped(self.output),
            console.progress(f"Measuring {wanted.name}") as progress,
        ):
            finished = evals.evaluate(
                icae,
                inputs,
                wanted,
                folder=self.output,
                command=command_line(),
                replace=self.force,
                on_progress=progress,
            )
        return shown(finished)


@contextmanager
def kept_when_stopped(folder: Path) -> Iterator[None]:
    """Say how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        console.note(f"What was measured is kept in {folder}; the same command goes on from there.")
        raise


def command_line() -> str:
    """The command, for the record."""
    return shlex.join(["icae", *sys.argv[1:]])


def shown(finished: Finished) -> Outcome:
    """A result, with the names of its files."""
    files = [str(path) for path in finished.files]

    def show() -> None:
        for table in finished.tables:
            titles = [column.title.partition(" (")[0] for column in table.filled]
            print_table(titles, table.texts(short=True), title=table.title)
        for file in files:
            console.results().print(file, soft_wrap=True)

    return Outcome(payload={**finished.payload, "files": files}, show=show)


def print_table(
    titles: Sequence[str], lines: Sequence[Sequence[str]], *, title: str | None = None
) -> None:
    """Print a table on standard output; a figure is never cut, a narrow terminal wraps lines."""
    out = console.results()
    table = RichTable(box=None, pad_edge=False, title=title, title_justify="left")
    for name in titles:
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    wide = out.measure(table, options=out.options.update(width=1000)).maximum
    out.width = max(out.width, wide)
    out.print(table)


def whole_numbers(text: str | None, option: str = "--lengths") -> tuple[int, ...]:
    """Numbers of a list such as ``100,200``, sorted, each once; none if it was not given.

    Raises:
        ConfigError: If something else stands there.
    """
    if not text:
        return ()
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
