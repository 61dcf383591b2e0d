"""What an experiment is: settings that say what is measured, on what, and how it is shown.

An experiment is one file with one class, and one line in `icae.evals.registry`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from icae.config.spans import check_ratio
from icae.config.types import TokenIds
from icae.engine import Engine
from icae.errors import ConfigError, InputError
from icae.evals.contexts import Window, draw_windows, read_documents
from icae.evals.plots import Plot
from icae.evals.tables import Column, Row, Table
from icae.evals.text_metrics import bleu_signature

Reads = Literal["texts", "questions"]

PAPER_LENGTHS = (100, 200, 300, 400, 500)
RATIOS = (2.0, 4.0, 8.0, 16.0)


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

    @property
    def times(self) -> str:
        """The ratio as in ``4x``."""
        return f"{self.known_ratio:g}x"

    @property
    def known_ratio(self) -> float:
        """The ratio of a cell that has one."""
        assert self.ratio is not None
        return self.ratio


@dataclass(frozen=True, kw_only=True)
class Material:
    """What an experiment is measured on.

    Attributes:
        engine: Adapter and base model.
        record: What the result says about the material.
    """

    engine: Engine
    record: Mapping[str, Any]


On = TypeVar("On", bound=Material)


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC, Generic[On]):
    """Settings of an experiment, and how it is measured.

    Attributes:
        seed: Seed of contexts and bootstrap.
    """

    name: ClassVar[str]
    """Name of the experiment, its command and its files."""
    title: ClassVar[str]
    """Headline of table and plot."""
    question: ClassVar[str]
    """What it answers, one line of the report."""
    reads: ClassVar[Reads] = "texts"
    """Held-out texts or question files."""
    columns: ClassVar[tuple[Column, ...]]
    plots: ClassVar[tuple[Plot, ...]]
    notes: ClassVar[tuple[str, ...]]
    """How to read the figures, one sentence each."""

    seed: int = 0

    @classmethod
    @abstractmethod
    def quick(cls, span: int) -> Self:
        """Settings for a span length, of a few dozen seconds on two CPU cores."""

    @classmethod
    @abstractmethod
    def full(cls, span: int) -> Self:
        """Settings for a span length, as for a paper."""

    @abstractmethod
    def fixed(self) -> dict[str, Any]:
        """The settings that make results comparable; more cells may be added for the others."""

    @abstractmethod
    def prepare(self, engine: Engine, inputs: Sequence[Path]) -> On:
        """Read the material.

        Raises:
            IcaeError: If inputs or settings cannot be used with this engine.
            MissingDependencyError: If the `[eval]` extra is not installed.
        """

    @abstractmethod
    def cells(self, material: On) -> list[Cell]:
        """All cells, in the order in which they are measured."""

    @abstractmethod
    def measure(self, material: On, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell; `rows` are those of the cells before it."""

    def remarks(self, material: On) -> tuple[str, ...]:
        """The notes, with those that depend on settings and material."""
        return self.notes

    def compared(self, material: On, rows: Sequence[Row]) -> Table | None:
        """What is worked out from the rows of all cells once they are there, if anything."""
        return None


@dataclass(frozen=True, kw_only=True)
class HeldOut(Material):
    """Windows of held-out text."""

    windows: tuple[Window, ...]


@dataclass(frozen=True, kw_only=True)
class TextExperiment(Experiment[HeldOut]):
    """An experiment on windows of held-out text, by context length and ratio.

    Attributes:
        lengths: Context lengths in tokens.
        ratios: Compression ratios, context tokens per slot.
        samples: Contexts at each length, the same for all ratios.
    """

    baseline: ClassVar[bool] = False
    """Whether each length has a cell that no ratio changes, measured first."""

    lengths: tuple[int, ...]
    ratios: tuple[float, ...]
    samples: int = 64

    def __post_init__(self) -> None:
        check_lengths(self.lengths, self.samples)
        check_ratios(self.ratios)

    @property
    def after(self) -> int:
        """Tokens behind each context that are used, too."""
        return 0

    @property
    def positions(self) -> int:
        """Decoder positions that the longest context needs: its slots, [AE] and its tokens."""
        return 2 * max(self.lengths) + 1

    def prepare(self, engine: Engine, inputs: Sequence[Path]) -> HeldOut:
        """Draw the windows."""
        signature = bleu_signature()
        drawn = draw_windows(
            read_documents(inputs, engine.tokenizer),
            size=self._window,
            samples=self.samples,
            seed=self.seed,
        )
        require_fit(engine, self.positions)
        record = {
            "documents": drawn.documents,
            "overlapping_windows": drawn.overlapping,
            "lengths": list(self.lengths),
            "ratios": list(self.ratios),
            "bleu": signature,
        }
        return HeldOut(engine=engine, record=record, windows=drawn.windows)

    @property
    def _window(self) -> int:
        return max(self.lengths) + self.after

    def fixed(self) -> dict[str, Any]:
        """The settings besides lengths, ratios and seed."""
        rest = asdict(self)
        for key in ("lengths", "ratios", "seed"):
            del rest[key]
        return {**rest, "window": self._window}

    def cells(self, material: HeldOut) -> list[Cell]:
        """Every length and ratio."""
        ratios = (None, *self.ratios) if self.baseline else self.ratios
        return [Cell(length=n, ratio=ratio) for n in self.lengths for ratio in ratios]

    def contexts(self, material: HeldOut, cell: Cell) -> list[TokenIds]:
        """The contexts of a cell."""
        return [w.context(cell.length, after=self.after) for w in material.windows]

    def following(self, material: HeldOut) -> list[TokenIds]:
        """What follows each context, the same at every length."""
        return [window.context(self.after) for window in material.windows]


def paper_lengths(span: int) -> tuple[int, ...]:
    """The lengths of the paper and the adapter's own span length."""
    return tuple(sorted({span, *PAPER_LENGTHS}))


def check_lengths(lengths: Sequence[int], samples: int) -> None:
    """Refuse context lengths and numbers of contexts that are out of range.

    Raises:
        ConfigError: If they are.
    """
    if not lengths or min(lengths) < 2:
        got = ", ".join(map(str, lengths)) or "none"
        raise ConfigError("The context lengths are out of range.", got=got, expected=">= 2")
    check_least("Too few contexts to compare.", samples, 2, "samples")


def check_ratios(ratios: Sequence[float]) -> None:
    """Refuse ratios that are out of range, or none at all.

    Raises:
        ConfigError: If they are.
    """
    if not ratios:
        raise ConfigError("There is no ratio to measure.", expected="one ratio or more")
    for ratio in ratios:
        check_ratio(ratio)


def check_least(message: str, got: int, least: int, unit: str = "") -> None:
    """Refuse a number below the least one.

    Raises:
        ConfigError: If it is.
    """
    if got < least:
        raise ConfigError(message, got=str(got), expected=f"{least} or more {unit}".strip())


def check_share(message: str, got: int, samples: int) -> None:
    """Refuse a number of contexts that is not among the samples.

    Raises:
        ConfigError: If it is not.
    """
    if not 0 <= got <= samples:
        raise ConfigError(message, got=str(got), expected=f"0 to {samples}, the number of samples")


def require_fit(engine: Engine, positions: int) -> None:
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
