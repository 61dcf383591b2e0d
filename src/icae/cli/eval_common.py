"""What the `icae eval` commands share: their options, progress and result."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table as RichTable

from icae.cli import console
from icae.cli.command import Outcome
from icae.cli.options import ModelOptions, split_names
from icae.errors import ConfigError

if TYPE_CHECKING:
    from icae.data.triplets.service import ChatService
    from icae.evals import Finished

Numbers = Annotated[str, typer.Option(metavar="N,N,...")]
Ratios = Annotated[
    str, typer.Option(metavar="R,R,...", help="Compression ratios: context tokens a slot.")
]
Samples = Annotated[int, typer.Option(min=2, metavar="N", help="Contexts at each length.")]
Greedy = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Contexts of these that are also written back freely."),
]
Name = Annotated[str, typer.Option(metavar="NAME")]
KeyVariable = Annotated[
    str,
    typer.Option("--api-key-env", metavar="NAME", help="Environment variable with the key."),
]
ResultFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the result files.")
]
Replace = Annotated[
    bool, typer.Option("--force", help="Replace a result of other settings in that folder.")
]

SHORTEST_SPAN = 2
"""The shortest span length that experiments take."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The draw, and where the result goes."""

    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the draw.")] = 0
    output: ResultFolder = Path("eval")
    force: Replace = False

    def measured(
        self, name: str, inputs: list[Path], model: ModelOptions, **options: Any
    ) -> Outcome:
        """Load a model, run an experiment on it and write its files.

        Args:
            name: The class of the experiment in `icae.evals`.
            inputs: Held-out corpus files or folders, or triplet files.
            model: The model.
            options: Settings of the experiment, as `settings_of` reads them.

        Raises:
            IcaeError: If the texts, the settings or the model cannot be used.
            KeyboardInterrupt: After Ctrl-C; the finished cells are kept.
        """
        settings = {**settings_of(options), "seed": self.seed}
        from icae import evals

        kind = getattr(evals, name)
        kind.sized(SHORTEST_SPAN, **settings)  # what no adapter could do is refused at once
        engine = model.load()
        experiment = kind.sized(engine.config.span_length, **settings)
        with (
            kept_when_stopped(self.output),
            console.progress(f"Measuring {kind.name}") as progress,
        ):
            finished = evals.evaluate(
                engine,
                inputs,
                experiment,
                folder=self.output,
                command=command_line(),
                replace=self.force,
                on_progress=progress,
            )
        return shown(finished)


def judge_service(
    judge_url: str, judge_model: str, key_variable: str, **options: Any
) -> ChatService:
    """A judge whose key stands in an environment variable.

    Raises:
        ConfigError: If a value is out of range.
    """
    from icae.data.triplets.service import ChatService

    key = os.environ.get(key_variable, "")
    return ChatService(url=judge_url, model=judge_model, api_key=key, **options)


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
            titles = [title.partition(" (")[0] for title in table.filled.values()]
            print_table(titles, table.texts(short=True), title=table.title)
        for file in files:
            console.results().print(file, soft_wrap=True)

    return Outcome(payload={**finished.payload, "files": files}, show=show)


def print_table(
    titles: Sequence[str], lines: Sequence[Sequence[str]], *, title: str | None = None
) -> None:
    """Print a table on standard output, headings, then cells on several lines if it is too wide.

    A figure is never cut: a terminal that is narrower still wraps lines.
    """
    out = console.results()

    def broken(cells: Sequence[str]) -> list[str]:
        return [cell.replace(" ", "\n") for cell in cells]

    short = broken(titles)
    for heads, rows in ((titles, lines), (short, lines), (short, [broken(line) for line in lines])):
        table = RichTable(box=None, pad_edge=False, title=title, title_justify="left")
        for name in heads:
            table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
        for row in rows:
            table.add_row(*row)
        wide = out.measure(table, options=out.options.update(width=1000)).maximum
        if wide <= out.width:
            break
    out.width = max(out.width, wide)
    out.print(table)


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an experiment from the options of its command.

    Lists such as ``2,4`` are read by the name of their option; no more contexts are written back
    or shown than there are.

    Raises:
        ConfigError: If a list cannot be read.
    """
    settings = {
        key: _READ[key](value or "") if key in _READ else value for key, value in options.items()
    }
    for key in {"greedy", "examples"} & set(settings):
        settings[key] = min(settings[key], settings["samples"])
    return settings


def _numbers(
    text: str,
    option: str,
    fits: Callable[[float], bool],
    expected: str,
    *,
    kind: type[int] | type[float] = float,
    empty: str | None = None,
) -> tuple[float, ...]:
    """Numbers of a list such as ``2,4``, sorted, each once; none where the text is `empty`."""
    if text.strip() == empty:
        return ()
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
    return tuple(sorted(map(kind, numbers)))


def _size_pairs(text: str) -> tuple[tuple[int, int], ...]:
    """(batch, length) of a list such as ``1x128,4x512``, each once, in order."""
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
    return tuple(dict.fromkeys(pairs))


_whole = partial(_numbers, fits=float.is_integer, expected="whole numbers", kind=int, empty="")
_READ: dict[str, Callable[[str], Any]] = {
    "lengths": partial(_whole, option="--lengths"),
    "spans": partial(_whole, option="--spans"),
    "ratios": partial(
        _numbers, option="--ratios", fits=lambda n: n >= 1, expected="ratios of at least 1"
    ),
    "depths": partial(
        _numbers, option="--depths", fits=lambda n: 0 <= n <= 1, expected="shares from 0 to 1"
    ),
    "sizes": _size_pairs,
    "starts": split_names,
    "readers": split_names,
    "kinds": split_names,
}
"""How the text of an option becomes the setting of an experiment, by its name."""
