"""What an experiment is: a grid of cells, each measured on the same contexts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from icae.api import Icae
from icae.errors import ConfigError, InputError
from icae.evaluation.contexts import Window
from icae.evaluation.memories import Tick
from icae.evaluation.metrics import Estimate
from icae.evaluation.panels import BY_LENGTH as BY_LENGTH
from icae.evaluation.panels import Axis as Axis
from icae.evaluation.panels import Drawing
from icae.evaluation.panels import Panel as Panel
from icae.spans import check_ratio

Row = dict[str, Any]
"""One line of a result: plain values, ready for JSON; figures are `Estimate`s as dicts."""

LENGTHS = (100, 200, 300, 400, 500)
"""Context lengths of the paper."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The unit that is measured, written and resumed.

    Attributes:
        length: Context tokens.
        ratio: Compression ratio, or None for what does not depend on it.
        text: Kind of text, where an experiment has several.
    """

    length: int
    ratio: float | None = None
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the table: its title, the key of the rows and the digits shown."""

    title: str
    key: str
    digits: int = 0


Exhibit = Callable[[Sequence[Row]], str]
"""Turns the rows of a result into a piece of HTML that a table cannot say."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What every experiment is told.

    Attributes:
        lengths: Context lengths in tokens.
        ratios: Compression ratios, context tokens per slot.
        samples: Contexts at each length, the same for all ratios.
        seed: Seed of the draw of contexts and of the bootstrap.
    """

    exhibits: ClassVar[tuple[Exhibit, ...]] = ()
    """What its HTML page shows beside the table; without any there is no page."""

    lengths: tuple[int, ...]
    ratios: tuple[float, ...]
    samples: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 2:
            got = ", ".join(map(str, self.lengths)) or "none"
            raise ConfigError("The context lengths are out of range.", got=got, expected=">= 2")
        if not self.ratios:
            raise ConfigError("There is no ratio to measure.", expected="one ratio or more")
        for ratio in self.ratios:
            check_ratio(ratio)
        if self.samples < 2:
            raise ConfigError(
                "Too few contexts to compare.", got=str(self.samples), expected="samples >= 2"
            )

    @property
    def window(self) -> int:
        """Tokens of a window: the longest context and what must follow it."""
        return max(self.lengths)

    def fixed(self) -> dict[str, Any]:
        """The settings besides lengths, ratios and seed: those that make results comparable."""
        rest = asdict(self)
        for key in ("lengths", "ratios", "seed"):
            del rest[key]
        return {**rest, "window": self.window}


class Experiment(Protocol):
    """Measures cells."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of the table."""
        ...

    @property
    def panels(self) -> tuple[Drawing, ...]:
        """Plots."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """How to read the figures, one sentence each."""
        ...

    def cells(self) -> list[Cell]:
        """All cells, in the order in which they are measured."""
        ...

    def cost(self, cell: Cell) -> int:
        """About how many tokens go through the model for a cell."""
        ...

    def measure(self, cell: Cell, rows: Sequence[Row], tick: Tick) -> list[Row]:
        """The rows of a cell.

        Args:
            cell: What to measure.
            rows: The rows of the cells before it.
            tick: Called with tokens that went through the model.
        """
        ...


class Settings(Protocol):
    """Settings that know their experiment; see `Grid`."""

    @property
    def name(self) -> str:
        """Name of the experiment and of its files."""
        ...

    @property
    def title(self) -> str:
        """Headline of table and plot."""
        ...

    @property
    def lengths(self) -> tuple[int, ...]:
        """Context lengths in tokens."""
        ...

    @property
    def ratios(self) -> tuple[float, ...]:
        """Compression ratios."""
        ...

    @property
    def samples(self) -> int:
        """Contexts at each length."""
        ...

    @property
    def seed(self) -> int:
        """Seed of contexts and bootstrap."""
        ...

    @property
    def window(self) -> int:
        """Tokens of a window."""
        ...

    @property
    def exhibits(self) -> tuple[Exhibit, ...]:
        """What its HTML page shows beside the table; without any there is no page."""
        ...

    def fixed(self) -> Mapping[str, Any]:
        """The settings besides lengths, ratios and seed."""
        ...

    def build(self, engine: Icae, windows: Sequence[Window]) -> Experiment:
        """The experiment on a loaded model and drawn windows."""
        ...


def default_lengths(span_length: int) -> tuple[int, ...]:
    """The lengths of the paper and the adapter's own span length."""
    return tuple(sorted({span_length, *LENGTHS}))


def plain(estimate: Estimate) -> dict[str, float]:
    """An estimate as it stands in a row."""
    return asdict(estimate)


def require_fit(engine: Icae, positions: int) -> None:
    """Refuse a length that the decoder cannot read.

    Raises:
        InputError: If there are more positions than its context window.
    """
    window = engine.runtime.context_window
    if positions > window:
        raise InputError(
            "The longest context does not fit the decoder.",
            got=f"{positions} positions with slots and text",
            expected=f"at most {window}",
            fix="Lower --lengths.",
        )
