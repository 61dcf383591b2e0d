"""The kinds of plot an experiment can ask for: lines with bands, a heat map, bars.

A panel draws itself on axes of matplotlib, which is never imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#a6761d")
GREYS = ("#222222", "#888888")
STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1)), (0, (3, 1, 1, 1, 1, 1)))


class Drawing(Protocol):
    """One plot."""

    def has(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the rows hold anything to draw."""
        ...

    def draw(self, axis: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Draw the rows.

        Args:
            axis: Axes of matplotlib.
            rows: Rows of a result.

        Returns:
            Label -> artist of each entry that the legend of the figure needs.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a plot runs along: the key of whole numbers in the rows, and its label."""

    key: str
    label: str


BY_LENGTH = Axis(key="length", label="context length (tokens)")
BY_RATIO = Axis(key="ratio", label="compression ratio (context tokens per slot)")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines: one figure of every series, with its interval as a band.

    Rows of one ``series`` make a line; its colour tells the ratio (grey: none), its stroke
    the ``kind``; along ratios its colour tells the series. Where a line is one point, the
    interval is a bar.

    Attributes:
        key: Key of the figure in the rows.
        title: Title, with the unit.
        limits: Fixed ends of the axis, each or both None.
        level: A level to mark with a thin line, or None.
        axis: What it runs along; a row without a value there is a level line.
        dataset: The data set whose rows are drawn; None draws all.
    """

    key: str
    title: str
    limits: tuple[float | None, float | None] = (None, None)
    level: float | None = None
    axis: Axis = BY_LENGTH
    dataset: str | None = None

    def has(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a row holds the figure."""
        return bool(self._points(rows))

    def draw(self, axis: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Draw a line for each series, all of which the legend names."""
        handles: dict[str, Any] = {}
        by_series = self.axis == BY_RATIO or runs_over_ratios(rows)
        looks = (looks_by_series if by_series else _looks_by_ratio)(rows)
        places = sorted({row[self.axis.key] for row in rows} - {None})
        shown = self._points(rows)
        drawn = [name for name in looks if any(row["series"] == name for row in shown)]
        for number, series in enumerate(drawn):
            points = [row for row in shown if row["series"] == series]
            # At a single place the series stand side by side.
            beside = number - (len(drawn) - 1) / 2 if len(places) == 1 else 0.0
            handles[series] = self._line(axis, points, looks[series], beside)
        dress(axis, self.title)
        if len(places) == 1:
            half = max(1.0, len(drawn) / 2)
            axis.set_xlim(places[0] - half, places[0] + half)
        axis.set_xlabel(self.axis.label, fontsize=9)
        axis.set_xticks(places, [f"{n:g}" for n in places])
        axis.set_ylim(*self.limits)
        if self.level is not None:
            axis.axhline(self.level, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
        return handles

    def _points(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The rows that are shown."""
        own = [row for row in rows if self.dataset is None or row.get("dataset") == self.dataset]
        return [row for row in own if row.get(self.key) is not None]

    def _line(
        self,
        axis: Any,
        points: Sequence[Mapping[str, Any]],
        look: dict[str, Any],
        beside: float,
    ) -> Any:
        if points[0][self.axis.key] is None:
            return _level(axis, points[0][self.key], look)
        points = sorted(points, key=lambda row: float(row[self.axis.key]))
        x = [row[self.axis.key] + beside for row in points]
        value, low, high = ([r[self.key][end] for r in points] for end in ("value", "low", "high"))
        (line,) = axis.plot(x, value, marker="o", markersize=4, linewidth=1.5, **look)
        if len(x) == 1:
            axis.vlines(x, low, high, color=look["color"], linewidth=1.2, alpha=0.6)
        else:
            axis.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)
        return line


@dataclass(frozen=True, kw_only=True)
class HeatPanel:
    """A heat map: the matrix of one row, zero white, positive red, negative blue.

    Attributes:
        key: Key of the matrix (list of equally long lists) in the rows.
        series: The row, by its ``series``.
        title: Title, with the unit.
        across: Label of the columns.
        down: Label of the rows of the matrix.
    """

    key: str
    series: str
    title: str
    across: str
    down: str

    def has(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the row is there."""
        return any(self._is(row) for row in rows)

    def draw(self, axis: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Draw the matrix with its own colour bar; the legend needs nothing."""
        matrix = next(row[self.key] for row in rows if self._is(row))
        bound = max(1e-9, *(abs(value) for line in matrix for value in line))
        image = axis.imshow(
            matrix, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest"
        )
        axis.set_title(self.title, fontsize=10)
        axis.set_xlabel(self.across, fontsize=9)
        axis.set_ylabel(self.down, fontsize=9)
        axis.tick_params(labelsize=8)
        for side in (axis.xaxis, axis.yaxis):
            side.get_major_locator().set_params(integer=True)
        axis.figure.colorbar(image, ax=axis, shrink=0.85).ax.tick_params(labelsize=8)
        return {}

    def _is(self, row: Mapping[str, Any]) -> bool:
        return row["series"] == self.series and row.get(self.key) is not None


@dataclass(frozen=True, kw_only=True)
class StackPanel:
    """Stacked horizontal bars: the parts of every series.

    Attributes:
        keys: Key -> label of the figures, stacked in this order.
        title: Title, with the unit.
    """

    keys: Mapping[str, str]
    title: str

    def has(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a row holds all parts."""
        return any(self._is(row) for row in rows)

    def draw(self, axis: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Draw a bar for each row; the legend names the parts."""
        shown = [row for row in rows if self._is(row)]
        names = [row["series"] for row in shown]
        left = [0.0] * len(shown)
        handles = {}
        for n, (key, label) in enumerate(self.keys.items()):
            parts = [row[key]["value"] for row in shown]
            colour = COLOURS[n % len(COLOURS)]
            handles[label] = axis.barh(names, parts, left=left, color=colour, height=0.7)
            left = [a + b for a, b in zip(left, parts, strict=True)]
        axis.invert_yaxis()
        dress(axis, self.title)
        return handles

    def _is(self, row: Mapping[str, Any]) -> bool:
        return all(row.get(key) is not None for key in self.keys)


def dress(axis: Any, title: str) -> None:
    """Title, grid and small type on axes of matplotlib."""
    axis.set_title(title, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.set_axisbelow(True)


def _level(axis: Any, figure: Mapping[str, float], look: dict[str, Any]) -> Any:
    """A line across the panel, with its interval."""
    axis.axhspan(figure["low"], figure["high"], color=look["color"], alpha=0.08, linewidth=0)
    return axis.axhline(figure["value"], linewidth=1.5, **look)


def runs_over_ratios(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a series has rows of several ratios, so that no colour can tell the ratio."""
    runs = {(row["series"], row["ratio"]) for row in rows if row["ratio"] is not None}
    return len(runs) > len({series for series, _ in runs})


def looks_by_series(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A colour for each series, in order, with a broken stroke where no ratio matters."""
    named = dict.fromkeys((row["series"] for row in rows), "--")
    named |= {row["series"]: "-" for row in rows if row["ratio"] is not None}
    return {
        series: {"color": COLOURS[i % len(COLOURS)], "linestyle": stroke}
        for i, (series, stroke) in enumerate(named.items())
    }


def _looks_by_ratio(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Colour by ratio and stroke by kind."""
    ratios = sorted({row["ratio"] for row in rows if row["ratio"] is not None})
    several = len(ratios) > 1
    kinds = list(dict.fromkeys(row["kind"] for row in rows if row["ratio"] is not None))
    bare = list(dict.fromkeys(row["kind"] for row in rows if row["ratio"] is None))
    looks: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["ratio"] is None:
            colour, style = GREYS[bare.index(row["kind"]) % len(GREYS)], "-"
        else:
            place = kinds.index(row["kind"])
            colour = COLOURS[(ratios.index(row["ratio"]) if several else place) % len(COLOURS)]
            style = STYLES[place % len(STYLES)]
        looks[row["series"]] = {"color": colour, "linestyle": style}
    return looks
