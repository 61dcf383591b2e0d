"""Rows as a picture: every panel of an experiment on one page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from icae.evals.experiment import Row
from icae.evals.metrics import missing_eval_extra
from icae.evals.panels import Drawing


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


def plot(rows: Sequence[Row], panels: Sequence[Drawing], *, title: str) -> bytes:
    """Draw every panel that has something to show; bands and bars are 95 % intervals.

    Args:
        rows: Rows of a result.
        panels: What to draw.
        title: Headline.

    Returns:
        A PNG file.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    shown = [panel for panel in panels if panel.has(rows)]
    wide = max(1, min(2, len(shown)))
    tall = max(1, -(-len(shown) // wide))
    figure = require_matplotlib()(figsize=(5 * wide + 0.5, 3.4 * tall + 1), layout="constrained")
    axes = figure.subplots(tall, wide, squeeze=False).flatten()
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes, shown, strict=False):
        for label, artist in panel.draw(axis, rows).items():
            handles.setdefault(label, artist)
    figure.suptitle(title, fontsize=12)
    if handles:
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
