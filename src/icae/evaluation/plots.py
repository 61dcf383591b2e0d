"""Rows as a picture: one panel a figure, one line a series."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from icae.evaluation.experiment import BY_RATIO, Panel, Row
from icae.evaluation.metrics import missing_eval_extra

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d")
GREYS = ("#222222", "#888888")
STYLES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1)), (0, (3, 1, 1, 1, 1, 1)))


def require_matplotlib() -> Any:
    """The class `matplotlib.figure.Figure`.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_eval_extra("matplotlib") from error
    return Figure


def plot(rows: Sequence[Row], panels: Sequence[Panel], *, title: str) -> bytes:
    """Draw every panel that has a figure.

    Rows of one ``series`` make a line; its colour tells the ratio (grey: none), its stroke
    the ``kind``; along ratios its colour tells the series. Bands, or bars where a line is one
    point, are 95 % intervals.

    Args:
        rows: Rows with ``ratio``, ``kind``, ``series`` and what the panels run along.
        panels: What to draw.
        title: Headline.

    Returns:
        A PNG file.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    shown = [p for p in panels if _points(rows, p)]
    wide = min(2, len(shown))
    tall = -(-len(shown) // wide)
    figure = require_matplotlib()(figsize=(5 * wide + 0.5, 3.4 * tall + 1), layout="constrained")
    axes = figure.subplots(tall, wide, squeeze=False).flatten()
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes, shown, strict=False):
        looks = _looks_by_series if panel.axis == BY_RATIO else _looks_by_ratio
        for series, look in looks(rows).items():
            points = [row for row in _points(rows, panel) if row["series"] == series]
            if points:
                handles.setdefault(series, _line(axis, points, panel, look))
        places = {row[panel.axis.key] for row in rows} - {None}
        _dress(axis, panel, sorted(places))
    figure.suptitle(title, fontsize=12)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(4, len(handles)),
        fontsize=8,
        frameon=False,
        handlelength=3,
    )
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def _points(rows: Sequence[Row], panel: Panel) -> list[Row]:
    """The rows that a panel shows."""
    own = [row for row in rows if panel.dataset is None or row.get("dataset") == panel.dataset]
    return [row for row in own if row.get(panel.key) is not None]


def _looks_by_series(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """A colour for each series, in order, with a broken stroke where no ratio matters."""
    named = {row["series"]: row["ratio"] is None for row in rows}
    return {
        series: {"color": COLOURS[i % len(COLOURS)], "linestyle": "--" if bare else "-"}
        for i, (series, bare) in enumerate(named.items())
    }


def _looks_by_ratio(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Colour by ratio and stroke by kind, for each series in order."""
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


def _line(axis: Any, points: Sequence[Row], panel: Panel, look: dict[str, Any]) -> Any:
    if points[0][panel.axis.key] is None:
        return _level(axis, points[0][panel.key], look)
    points = sorted(points, key=lambda row: float(row[panel.axis.key]))
    x = [row[panel.axis.key] for row in points]
    value, low, high = ([row[panel.key][end] for row in points] for end in ("value", "low", "high"))
    (line,) = axis.plot(x, value, marker="o", markersize=4, linewidth=1.5, **look)
    if len(x) == 1:
        axis.vlines(x, low, high, color=look["color"], linewidth=1.2, alpha=0.6)
    else:
        axis.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)
    return line


def _level(axis: Any, figure: dict[str, float], look: dict[str, Any]) -> Any:
    """A line across the panel, with its interval."""
    axis.axhspan(figure["low"], figure["high"], color=look["color"], alpha=0.08, linewidth=0)
    return axis.axhline(figure["value"], linewidth=1.5, **look)


def _dress(axis: Any, panel: Panel, places: Sequence[float]) -> None:
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel(panel.axis.label, fontsize=9)
    axis.set_xticks(places, [f"{n:g}" for n in places])
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.set_ylim(*panel.limits)
    if panel.level is not None:
        axis.axhline(panel.level, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
