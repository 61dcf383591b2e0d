"""What an experiment is: settings that say what is measured, on what, and how it is shown.

An experiment is one file with one class, and one line in `icae.evals.EXPERIMENTS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from icae.config.parsing import check
from icae.config.spans import check_ratio
from icae.config.types import TokenIds
from icae.engine import Engine
from icae.errors import ConfigError, InputError
from icae.evals.contexts import Window, draw_windows, read_documents
from icae.evals.held import Hold
from icae.evals.plots import Plot
from icae.evals.questions import QuestionSet
from icae.evals.respondents import Respondent
from icae.evals.tables import Columns, Row, Table
from icae.evals.text_metrics import bleu_signature

PAPER_LENGTHS = (100, 200, 300, 400, 500)
RATIOS = (2.0, 4.0, 8.0, 16.0, 32.0)


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
        windows: Windows of held-out text.
        sets: The questions of each data set, by name.
        respondents: Who answers them, by name.
        holds: Who holds held-out text, by name.
        digests: Hash of the weights of those who bring their own.
        notes: How to read the figures of this material.
    """

    engine: Engine
    record: Mapping[str, Any]
    windows: tuple[Window, ...] = ()
    sets: Mapping[str, QuestionSet] = field(default_factory=dict)
    respondents: Mapping[str, Respondent] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def contexts(self, length: int, *, after: int) -> list[TokenIds]:
        """A context of each window; see `Window.context`."""
        return [window.context(length, after=after) for window in self.windows]

    def key(self, name: str) -> str:
        """The reader of a cell: a name, and which weights."""
        return f"{name} {self.digests[name][:12]}" if name in self.digests else name

    def name(self, key: str | None) -> str:
        """The name that `key` made it of."""
        return {self.key(name): name for name in self.digests}.get(key or "", key or "")


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A picture that the report of all experiments opens with.

    Attributes:
        name: Name of its file.
        title: Its headline.
        text: What a visitor sees on it, in a sentence.
        plots: What is drawn of the rows.
    """

    name: str
    title: str
    text: str
    plots: tuple[Plot, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
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
    reads: ClassVar[Literal["texts", "questions"]] = "texts"
    """Held-out texts or question files."""
    columns: ClassVar[Columns]
    plots: ClassVar[tuple[Plot, ...]]
    opening: ClassVar[Opening | None] = None
    """What the report of all experiments shows of it first, if anything."""
    notes: ClassVar[tuple[str, ...]]
    """How to read the figures, one sentence each."""
    grows: ClassVar[tuple[str, ...]]
    """Settings that may gain values: a result goes on with more cells."""
    quick: ClassVar[Mapping[str, Any]]
    """Settings, as for `sized`, of a few dozen seconds on two CPU cores."""
    full: ClassVar[Mapping[str, Any]]
    """Settings as for a paper."""

    seed: int = 0

    @classmethod
    def sized(cls, span: int, **settings: Any) -> Self:
        """The experiment for an adapter of a span length."""
        return cls(**settings)

    @abstractmethod
    def prepare(self, engine: Engine, inputs: Sequence[Path]) -> Material:
        """Read the material.

        Raises:
            IcaeError: If inputs or settings cannot be used with this engine.
            MissingDependencyError: If the `[eval]` extra is not installed.
        """

    @abstractmethod
    def cells(self, material: Material) -> list[Cell]:
        """All cells, in the order in which they are measured."""

    @abstractmethod
    def measure(self, material: Material, cell: Cell, rows: Sequence[Row]) -> list[Row]:
        """The rows of a cell; `rows` are those of the cells before it."""

    def fixed(self) -> dict[str, Any]:
        """The settings that make results comparable."""
        rest = asdict(self)
        return {key: rest[key] for key in rest if key not in ("seed", *self.grows)}

    def remarks(self, material: Material) -> tuple[str, ...]:
        """How to read the figures."""
        return (*self.notes, *material.notes)

    def verdict(self, rows: Sequence[Row]) -> str:
        """What the rows come to: the first paragraph of the result, or nothing."""
        return ""

    def compared(self, material: Material, rows: Sequence[Row]) -> Table | None:
        """What is worked out from the rows of all cells once they are there, if anything."""
        return None


@dataclass(frozen=True, kw_only=True)
class TextExperiment(Experiment):
    """An experiment on windows of held-out text, by context length and ratio.

    Attributes:
        lengths: Context lengths in tokens.
        ratios: Compression ratios, context tokens per slot.
        samples: Contexts at each length, the same for all ratios.
    """

    grows: ClassVar[tuple[str, ...]] = ("lengths", "ratios")
    paper: ClassVar[tuple[int, ...]] = ()
    """The lengths of the paper, where it has this experiment."""
    baseline: ClassVar[bool] = False
    """Whether each length has a cell that no ratio changes, measured first."""

    lengths: tuple[int, ...]
    ratios: tuple[float, ...]
    samples: int = 64

    def __post_init__(self) -> None:
        check_lengths(self.lengths, self.samples)
        check_ratios(self.ratios)

    @classmethod
    def sized(
        cls,
        span: int,
        *,
        lengths: Sequence[int] = (),
        spans: Sequence[int] = (),
        **settings: Any,
    ) -> Self:
        """The experiment for an adapter of a span length.

        Args:
            span: The span length.
            lengths: Context lengths; by default those of the paper and the span length.
            spans: Lengths in spans, in their place.
            settings: The other settings.
        """
        usual = tuple(n * span for n in spans) or tuple(sorted({span, *cls.paper}))
        return cls(lengths=tuple(lengths) or usual, **settings)

    @property
    def after(self) -> int:
        """Tokens behind each context that are used, too."""
        return 0

    @property
    def positions(self) -> int:
        """Decoder positions that the longest context needs: its slots, [AE] and its tokens."""
        return 2 * max(self.lengths) + 1

    def prepare(self, engine: Engine, inputs: Sequence[Path]) -> Material:
        """Draw the windows."""
        signature = bleu_signature()
        documents = read_documents(inputs, engine.tokenizer)
        size = max(self.lengths) + self.after
        drawn = draw_windows(documents, size=size, samples=self.samples, seed=self.seed)
        require_fit(engine, self.positions)
        record = {
            "documents": drawn.documents,
            "overlapping_windows": drawn.overlapping,
            "lengths": list(self.lengths),
            "ratios": list(self.ratios),
            "bleu": signature,
        }
        return Material(engine=engine, record=record, windows=drawn.windows)

    def fixed(self) -> dict[str, Any]:
        """The settings that make results comparable, and the size of the windows."""
        return {**super().fixed(), "window": max(self.lengths) + self.after}

    def cells(self, material: Material) -> list[Cell]:
        """Every length and ratio."""
        ratios = (None, *self.ratios) if self.baseline else self.ratios
        return [Cell(length=n, ratio=ratio) for n in self.lengths for ratio in ratios]

    def contexts(self, material: Material, cell: Cell) -> list[TokenIds]:
        """The contexts of a cell."""
        return material.contexts(cell.length, after=self.after)

    def following(self, material: Material) -> list[TokenIds]:
        """What follows each context, the same at every length."""
        return material.contexts(self.after, after=0)


def check_lengths(lengths: Sequence[int], samples: int) -> None:
    """Refuse context lengths and numbers of contexts that are out of range.

    Raises:
        ConfigError: If they are.
    """
    if not lengths or min(lengths) < 2:
        got = ", ".join(map(str, lengths)) or "none"
        raise ConfigError("The context lengths are out of range.", got=got, expected=">= 2")
    check(samples >= 2, "Too few contexts to compare.", samples, "2 or more samples")


def check_ratios(ratios: Sequence[float]) -> None:
    """Refuse ratios that are out of range, or none at all.

    Raises:
        ConfigError: If they are.
    """
    if not ratios:
        raise ConfigError("There is no ratio to measure.", expected="one ratio or more")
    for ratio in ratios:
        check_ratio(ratio)


def check_known(message: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are not known, or none at all.

    Raises:
        ConfigError: If there are such.
    """
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        got = ", ".join(map(repr, unknown)) or "none"
        raise ConfigError(message, got=got, expected=", ".join(known))


def check_greedy(greedy: int, samples: int) -> None:
    """Refuse a number of greedily decoded contexts that is not among the samples.

    Raises:
        ConfigError: If it is not.
    """
    message = "The number of greedily decoded contexts is out of range."
    check(0 <= greedy <= samples, message, greedy, f"0 to {samples}, the number of samples")


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
