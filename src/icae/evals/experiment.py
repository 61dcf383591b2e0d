"""What an experiment is: a grid of cells, each measured on the same contexts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from icae.config.spans import check_ratio
from icae.engine import Icae
from icae.errors import ConfigError, InputError
from icae.evals.contexts import Window, draw_windows, read_documents
from icae.evals.memories import Tick
from icae.evals.metrics import Estimate, bleu_signature
from icae.evals.panels import BY_LENGTH as BY_LENGTH
from icae.evals.panels import BY_RATIO as BY_RATIO
from icae.evals.panels import Axis as Axis
from icae.evals.panels import Drawing
from icae.evals.panels import Panel as Panel

Row = dict[str, Any]
"""One line of a result: plain values, ready for JSON; figures are `Estimate`s as dicts."""

LENGTHS = (100, 200, 300, 400, 500)
"""Context lengths of the paper."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The unit that is measured, written and resumed.

    Attributes:
        length: Context tokens; 0 where the contexts have lengths of their own.
        ratio: Compression ratio, or None for what does not depend on it.
        text: Kind of text, where an experiment has several.
        dataset: Data set, where an experiment has several.
        reader: Who reads, where an experiment has several.
        batch: Contexts read together, where that is measured.
    """

    length: int = 0
    ratio: float | None = None
    text: str | None = None
    dataset: str | None = None
    reader: str | None = None
    batch: int | None = None

    def __str__(self) -> str:
        known = {key: value for key, value in asdict(self).items() if value}
        return ", ".join(f"{key} {value}" for key, value in known.items())


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the table: its title, the key of the rows and the digits shown."""

    title: str
    key: str
    digits: int = 0


Exhibit = Callable[[Sequence[Row]], str]
"""Turns the rows of a result into a piece of HTML that a table cannot say."""


@dataclass(frozen=True, kw_only=True)
class Grid(ABC):
    """What every experiment on windows of held-out text is told.

    Attributes:
        lengths: Context lengths in tokens.
        ratios: Compression ratios, context tokens per slot.
        samples: Contexts at each length, the same for all ratios.
        seed: Seed of the draw of contexts and of the bootstrap.
    """

    exhibits: ClassVar[tuple[Exhibit, ...]] = ()
    """What its HTML page shows beside the table."""

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

    @abstractmethod
    def build(self, engine: Icae, windows: Sequence[Window]) -> Experiment:
        """The experiment on a loaded model and drawn windows."""

    def prepare(self, engine: Icae, texts: Sequence[Path]) -> Prepared:
        """Draw the windows and build the experiment on them."""
        signature = bleu_signature()
        drawn = draw_windows(
            read_documents(texts, engine.tokenizer),
            size=self.window,
            samples=self.samples,
            seed=self.seed,
        )
        record = {
            "documents": drawn.documents,
            "overlapping_windows": drawn.overlapping,
            "lengths": list(self.lengths),
            "ratios": list(self.ratios),
            "bleu": signature,
        }
        experiment = self.build(engine, drawn.windows)
        return Prepared(experiment=experiment, record=record, exhibits=self.exhibits)

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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is worked out from the rows of all cells once they are there.

    Attributes:
        title: Headline of its table.
        columns: Columns of its table.
        compare: (rows of the result) -> rows of the comparison.
    """

    title: str
    columns: tuple[Column, ...]
    compare: Callable[[Sequence[Row]], list[Row]]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An experiment that is ready to be measured.

    Attributes:
        experiment: The experiment.
        record: What the result says about its material.
        comparison: What is worked out from all rows, or None.
        exhibits: What its HTML page shows beside the tables; without any there is no page.
    """

    experiment: Experiment
    record: Mapping[str, Any]
    comparison: Comparison | None = None
    exhibits: tuple[Exhibit, ...] = ()


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
    def seed(self) -> int:
        """Seed of contexts and bootstrap."""
        ...

    def fixed(self) -> Mapping[str, Any]:
        """The settings besides the seed and what more cells may be added for."""
        ...

    def prepare(self, engine: Icae, texts: Sequence[Path]) -> Prepared:
        """Read the material and build the experiment.

        Raises:
            IcaeError: If texts or settings cannot be used with this engine.
            MissingDependencyError: If the `[eval]` extra is not installed.
        """
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
