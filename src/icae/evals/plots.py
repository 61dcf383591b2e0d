"""The rows of a result as one picture of several plots: lines, heat maps, stacked bars."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icae.config.extras import import_extra
from icae.evals.tables import Row

if TYPE_CHECKING:
    import pandas as pd

AXES = {
    "length": "context length (tokens)",
    "ratio": "compression ratio (context tokens per slot)",
    "step": "refinement steps",
    "positions": "decoder positions per 100 context tokens",
    "spans": "spans",
    "context_positions": "decoder positions for the text",
    "seconds": "seconds a question, reading and answering",
}
"""Label of what a plot runs along, by its key in the rows."""

TITLES = {
    "ae_loss": "AE loss (nats per token)",
    "accuracy": "token accuracy, teacher-forced",
    "ae_accuracy": "AE token accuracy",
    "bleu": "BLEU-4 of greedy text",
    "prefix_share": "share of tokens before the first error",
    "fidelity": "fidelity, teacher-forced",
    "loss": "loss of the continuation (nats per token)",
    "perplexity": "perplexity of the continuation",
    "over_full": "perplexity / perplexity behind the full context",
    "raw_equal": "last raw tokens of equal perplexity",
    "gain": "raw tokens of equal perplexity a position",
    "f1": "F1",
    "seconds": "seconds in all",
    "first": "seconds to the first token",
    "speedup": "seconds of full context / seconds",
    "decode_rate": "decoded tokens per second, all rows",
}
"""Key of a figure in the rows -> title of its plot, with the unit."""

FROM_ZERO = ("bleu", "prefix_share", "seconds", "first", "decode_rate")
SHARES = ("accuracy", "fidelity")
"""Figures whose axis runs from 0, and from 0 to 1."""

COLOURS = (*(f"C{number}" for number in range(10)), "black", "gold", "navy", "lime", "tan")
"""One for each series, in order."""

AROUND_ONE = ("over_full", "gain", "speedup")
"""Ratios, whose plots have a thin line at 1."""

Panel = tuple[str, "pd.DataFrame"]
"""Title and rows of one set of axes."""


def lines_of(keys: str, along: str = "length", **titles: str) -> tuple[Lines, ...]:
    """Plots by the keys of their figures, with spaces between them; some under other titles."""
    named = TITLES | titles
    return tuple(Lines(key=key, title=named[key], along=along) for key in keys.split())


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A line for every series, with intervals; for each data set, where there are several.

    Attributes:
        key: Key of the figure in the rows.
        title: Title, with the unit.
        along: What it runs along, of `AXES`; a row without a value there is a level line.
        by: Keys of the rows that tell the lines apart.
    """

    key: str
    title: str
    along: str = "length"
    by: tuple[str, ...] = ("series",)

    def panels(self, rows: pd.DataFrame) -> list[Panel]:
        """One, or one for each data set."""
        if f"{self.key}.value" not in rows:
            return []
        shown = rows.dropna(subset=[f"{self.key}.value"])
        if "dataset" not in shown:
            return [(self.title, shown)] if len(shown) else []
        return [(f"{n}: {self.title}", own) for n, own in shown.groupby("dataset", sort=False)]

    def draw(self, axis: Any, rows: pd.DataFrame) -> None:
        """Each series in its ``colour``; what no ratio changes is dashed."""
        places = sorted(rows[self.along].dropna().unique())
        every = list(rows.groupby(list(self.by), sort=False))
        for number, (series, own) in enumerate(every):
            points = own.sort_values(self.along)
            value, low, high = (points[f"{self.key}.{end}"] for end in ("value", "low", "high"))
            look = {
                "color": points["colour"].iloc[0] if "series" in self.by else COLOURS[number],
                "linestyle": "--" if points["ratio"].isna().all() else "-",
                "label": ", ".join(map(str, series)),
            }
            if points[self.along].isna().all():
                axis.axhline(value.iloc[0], **look)
                axis.axhspan(low.iloc[0], high.iloc[0], color=look["color"], alpha=0.08)
                continue
            # At a single place the series stand side by side.
            beside = number - (len(every) - 1) / 2 if len(places) == 1 else 0.0
            # A percentile interval need not hold the figure.
            ends = [(value - low).clip(lower=0), (high - value).clip(lower=0)]
            axis.errorbar(
                points[self.along] + beside, value, yerr=ends, marker="o", capsize=2, **look
            )
        axis.set_xlabel(AXES[self.along], fontsize=9)
        axis.set_xticks(places, [f"{place:g}" for place in places])
        if self.key in (*FROM_ZERO, *SHARES):
            axis.set_ylim(0, 1 if self.key in SHARES else None)
        if self.key in AROUND_ONE:
            axis.axhline(1.0, color="black", linewidth=0.8, linestyle=":")


@dataclass(frozen=True, kw_only=True)
class HeatMaps:
    """The matrix of every row: zero white, positive red, negative blue.

    Attributes:
        key: Key of the matrix (list of equally long lists) in the rows.
        title: What the values are, with the unit.
        across: Label of the columns.
        down: Label of the rows of the matrix.
    """

    key: str
    title: str
    across: str
    down: str

    def panels(self, rows: pd.DataFrame) -> list[Panel]:
        """One for each row."""
        return [(f"{n}: {self.title}", own) for n, own in rows.groupby("series", sort=False)]

    def draw(self, axis: Any, rows: pd.DataFrame) -> None:
        """The matrix with its own colour bar."""
        matrix = rows[self.key].iloc[0]
        bound = max(1e-9, *(abs(value) for line in matrix for value in line))
        image = axis.imshow(matrix, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
        axis.set_xlabel(self.across, fontsize=9)
        axis.set_ylabel(self.down, fontsize=9)
        axis.figure.colorbar(image, ax=axis, shrink=0.85)


@dataclass(frozen=True, kw_only=True)
class DepthMaps:
    """For every series a map of shares (0..1), lengths across and depths down.

    Attributes:
        key: Key of the shares in the rows, one for each of their ``depths``.
        title: What the shares are.
    """

    key: str
    title: str

    def panels(self, rows: pd.DataFrame) -> list[Panel]:
        """One for each series, over all rows with depths."""
        shown = rows[[None not in depths for depths in rows["depths"]]]
        return [(f"{n}: {self.title}", own) for n, own in shown.groupby("series", sort=False)]

    def draw(self, axis: Any, rows: pd.DataFrame) -> None:
        """The mean at each length and depth, in colour and in figures."""
        flat = rows[["length", "depths", self.key]].explode(["depths", self.key])
        flat[self.key] = flat[self.key].astype(float)
        grid = flat.pivot_table(index="depths", columns="length", values=self.key)
        axis.imshow(grid.to_numpy(), cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
        for (down, across), share in [
            ((i, j), grid.iat[i, j]) for i in range(len(grid)) for j in range(grid.shape[1])
        ]:
            look = {"color": "white" if abs(share - 0.5) > 0.35 else "black", "fontsize": 9}
            axis.text(across, down, f"{share:.2f}", ha="center", va="center", **look)
        axis.set_xticks(range(grid.shape[1]), [str(length) for length in grid.columns])
        axis.set_yticks(range(len(grid)), [f"{depth:g}" for depth in grid.index])
        axis.set_xlabel(AXES["length"], fontsize=9)
        axis.set_ylabel("depth of the needle", fontsize=9)


def pareto_of(key: str, title: str, **where: Any) -> tuple[Pareto, Pareto]:
    """A figure against decoder positions, and against seconds."""
    return (
        Pareto(key=key, title=f"{title} by positions", along="context_positions", **where),
        Pareto(key=key, title=f"{title} by seconds", along="seconds", **where),
    )


@dataclass(frozen=True, kw_only=True)
class Pareto:
    """What each reader is worth against what it takes, a point for every ratio, best top left.

    Attributes:
        key: Key of the figure in the rows.
        title: Title, with the unit.
        along: Key of what it takes, of `AXES`.
        each: Key of the rows that a plot is made for each value of, or None: of all, their mean.
    """

    key: str
    title: str
    along: str
    each: str | None = "dataset"

    def panels(self, rows: pd.DataFrame) -> list[Panel]:
        """One, or one for each data set."""
        if not {f"{self.key}.value", self.along} <= set(rows):
            return []
        shown = rows.dropna(subset=[f"{self.key}.value", self.along])
        if self.each is None:
            return [(self.title, shown)] if len(shown) else []
        return [(f"{n}: {self.title}", own) for n, own in shown.groupby(self.each, sort=False)]

    def draw(self, axis: Any, rows: pd.DataFrame) -> None:
        """A line for every reader; the grey steps are what nobody beats."""
        from matplotlib.ticker import LogLocator

        value, best = f"{self.key}.value", 0.0
        means = rows.groupby(["kind", "ratio"], dropna=False, sort=False)[[self.along, value]]
        points = means.mean().reset_index()
        colours = rows.groupby("kind")["colour"].first()
        for number, (kind, own) in enumerate(points.groupby("kind", sort=False)):
            look = {"color": colours[kind], "label": str(kind)}
            if not own[self.along].all():
                axis.axhline(own[value].iloc[0], linestyle=":", **look)
                continue
            marker = "*" if kind == "memory" else "osD^vPXp"[number % 8]
            size = 12 if kind == "memory" else 6
            look |= {"marker": marker, "markersize": size, "clip_on": False}
            axis.plot(own[self.along], own[value], **look)
            # The others take as many positions at the same ratios.
            for row in own.dropna().itertuples(index=False) if kind == "memory" else ():
                beside = {"xytext": (6, 4), "textcoords": "offset points"}
                axis.annotate(f"{row[1]:g}x", row[2:], fontsize=7, alpha=0.7, **beside)
        front = []
        order = points.sort_values([self.along, value], ascending=[True, False])
        for place, height in order[[self.along, value]].to_numpy():
            if place > 0 and height > best:
                front.append((place, height))
                best = height
        if front:  # somebody got something right
            axis.step(*zip(*front, strict=True), where="post", color="0.75", linewidth=6, zorder=0)
        axis.set_xscale("log", base=2)
        axis.margins(0.1)
        axis.xaxis.set_major_locator(LogLocator(base=2, subs=(1, 1.5)))
        axis.xaxis.set_major_formatter(lambda place, _: f"{place:g}")
        axis.set_xlabel(AXES[self.along], fontsize=9)
        axis.set_ylim(bottom=0)


@dataclass(frozen=True, kw_only=True)
class StackedBars:
    """Horizontal bars: the parts of every series.

    Attributes:
        keys: Key -> label of the figures, stacked in this order.
        title: Title, with the unit.
    """

    keys: Mapping[str, str]
    title: str

    def panels(self, rows: pd.DataFrame) -> list[Panel]:
        """One of all rows that hold the parts."""
        wanted = [f"{key}.value" for key in self.keys]
        shown = rows.dropna(subset=wanted) if set(wanted) <= set(rows) else rows[:0]
        return [(self.title, shown)] if len(shown) else []

    def draw(self, axis: Any, rows: pd.DataFrame) -> None:
        """A bar for each row."""
        parts = rows.set_index("series")[[f"{key}.value" for key in self.keys]]
        named = parts.rename(columns={f"{key}.value": label for key, label in self.keys.items()})
        named.plot.barh(stacked=True, ax=axis, legend=False, ylabel="")
        axis.invert_yaxis()


Plot = Lines | HeatMaps | DepthMaps | Pareto | StackedBars
"""Says which rows get axes of their own (`panels`), and draws them (`draw`)."""


def require_drawing() -> None:
    """Refuse to begin what could not be shown in the end.

    Raises:
        MissingDependencyError: If pandas or matplotlib is not installed.
    """
    for package in ("pandas", "matplotlib"):
        import_extra(package, purpose="Evaluation", extra="eval")


def picture(rows: Sequence[Row], plots: Sequence[Plot], *, title: str) -> bytes:
    """Draw every plot that has something to show, with 95 % intervals.

    Returns:
        A PNG file.
    """
    import pandas as pd
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    frame = pd.json_normalize(list(rows))  # a figure becomes key.value, key.low and key.high
    numbers = pd.factorize(frame["series"])[0]
    frame["colour"] = [COLOURS[number % len(COLOURS)] for number in numbers]
    shown = [(plot, *panel) for plot in plots for panel in plot.panels(frame)]
    wide = max(1, min(2 if len(shown) < 5 else 3, len(shown)))
    tall = max(1, -(-len(shown) // wide))
    apart = ConstrainedLayoutEngine(h_pad=0.1)  # a label from the title below it
    figure = Figure(figsize=(5 * wide + 0.5, 3.4 * tall + 1), layout=apart)
    axes = figure.subplots(tall, wide, squeeze=False).flatten()
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    legend: dict[str, Any] = {}
    for axis, (plot, name, own) in zip(axes, shown, strict=False):
        plot.draw(axis, own)
        axis.set_title(name, fontsize=10)
        axis.tick_params(labelsize=8)
        artists, labels = axis.get_legend_handles_labels()
        legend = {**dict(zip(labels, artists, strict=True)), **legend}
    figure.suptitle(title, fontsize=12)
    if legend:
        where = {"loc": "outside lower center", "ncols": min(4, len(legend))}
        figure.legend(legend.values(), legend.keys(), fontsize=8, frameon=False, **where)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()
