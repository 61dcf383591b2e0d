from __future__ import annotations

from typing import Any

import matplotlib.figure
import pytest

from icae.evals.plots import HeatMaps, Lines, StackedBars, picture
from icae.evals.results import ResultFiles
from icae.evals.tables import Table

COLUMNS = {"ratio": "ratio", "gain": "raw tokens", "none": "of no row"}
PNG = b"\x89PNG\r\n\x1a\n"
FIGURE = {"value": 2.346, "low": 2.1, "high": 2.5}


def test_figures_have_their_interval_and_what_a_row_lacks_is_a_dash() -> None:
    table = Table(rows=[{"ratio": 4.0, "gain": FIGURE}, {"ratio": 128}], columns=COLUMNS)
    assert table.texts() == [["4", "2.35 [2.10, 2.50]"], ["128", "-"]]
    assert table.texts(short=True)[0] == ["4", "2.35 ±0.20"]
    assert table.figures() == [{"ratio": 4.0, "gain": FIGURE}, {"ratio": 128}]


def test_html_is_escaped_and_never_cut() -> None:
    table = Table(rows=[{"ratio": "<b>" + "x" * 80}], columns=COLUMNS, title="<T>")
    assert "&lt;b&gt;" + "x" * 80 in table.html()
    assert "<h3>&lt;T&gt;</h3>" in table.html()


def test_page_holds_table_notes_and_command(tmp_path: Any) -> None:
    head = {
        "title": "T",
        "experiment": "e",
        "intervals": "95 %",
        "command": "icae eval e",
        "icae": "1",
        "commit": None,
        "adapter": {"name": "a", "hash": "b" * 64},
        "base": {"name": "c", "hash": "d" * 64},
        "dtype": "float32",
        "seed": 0,
        "data": [{"file": "x.txt", "sha256": "e" * 64}],
        "hardware": "a machine",
    }
    rows = [{"series": "s", "length": 8, "ratio": 2.0, "gain": FIGURE}]
    table, plots = Table(rows, COLUMNS), [Lines(key="gain", title="gain")]
    files = ResultFiles(folder=tmp_path, name="e")
    finished = files.finish({**head, "rows": rows}, [table], ["Read it so."], plots)
    page = (tmp_path / "e.md").read_text()
    assert "| ratio | raw tokens |\n|---:|---:|\n" in page
    assert "| 2 | 2.35 [2.10, 2.50] |\n" in page
    assert "- Read it so." in page
    assert "commit unknown" in page
    assert f"x.txt ({'e' * 12})" in page
    assert finished.picture.startswith(PNG)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were drawn."""
    made: list[Any] = []

    class Kept(matplotlib.figure.Figure):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append(self)

    monkeypatch.setattr(matplotlib.figure, "Figure", Kept)
    return made


def test_a_line_for_each_series_and_levels_for_what_no_ratio_changes(drawn: Any) -> None:
    rows = [
        {"dataset": name, "ratio": ratio, "series": kind, "f1": FIGURE}
        for name in ("squad", "boolq")
        for kind, ratio in (("full", None), ("none", None), ("memory", 2.0), ("memory", 4.0))
    ]
    plots = [Lines(key="f1", title="F1", along="ratio"), Lines(key="absent", title="absent")]
    assert picture(rows, plots, title="T").startswith(PNG)
    (figure,) = drawn
    assert [axis.get_title() for axis in figure.axes] == ["squad: F1", "boolq: F1"]
    for axis in figure.axes:
        artists, labels = axis.get_legend_handles_labels()
        assert sorted(labels) == ["full", "memory", "none"]
        assert [label.get_text() for label in axis.get_xticklabels()] == ["2", "4"]
        (line,) = [a[0] for a, label in zip(artists, labels, strict=True) if label == "memory"]
        assert line.get_xdata().tolist() == [2, 4]
        assert line.get_color() == "C2"  # the same in every panel


def test_a_plot_runs_along_its_key_and_single_places_stand_side_by_side(drawn: Any) -> None:
    rows = [
        {"length": 8, "step": n, "ratio": 2.0, "series": series, "loss": FIGURE}
        for n in (10, 0, 5)
        for series in ("own", "other")
    ]
    by_step = Lines(key="loss", title="loss", along="step")
    picture(rows, (by_step, Lines(key="loss", title="loss")), title="T")
    left, right = drawn[0].axes
    assert left.get_xlabel() == "refinement steps"
    first = left.get_legend_handles_labels()[0][0][0]
    assert first.get_xdata().tolist() == [0, 5, 10]
    places = [artist[0].get_xdata()[0] for artist in right.get_legend_handles_labels()[0]]
    assert places[0] != places[1]


def test_matrices_and_parts_are_drawn_for_every_row(drawn: Any) -> None:
    rows = [
        {"series": f"row {n}", "drops": [[1.0, -2.0], [0.0, 3.0]], "win": FIGURE, "tie": FIGURE}
        for n in range(2)
    ]
    heat = HeatMaps(key="drops", title="nats", across="token", down="slot")
    picture(rows, [heat, StackedBars(keys={"win": "win", "tie": "tie"}, title="share")], title="T")
    titles = [axis.get_title() for axis in drawn[0].axes]
    assert titles[:3] == ["row 0: nats", "row 1: nats", "share"]
    bars = drawn[0].axes[2]
    assert [text.get_text() for text in bars.get_yticklabels()] == ["row 0", "row 1"]
