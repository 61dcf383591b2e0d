from __future__ import annotations

import pytest

from icae.evals.experiment import BY_RATIO, Axis, Column, Panel
from icae.evals.plots import plot, require_matplotlib
from icae.evals.tables import Table, cell_text, markdown, short_cell_text, table_texts

COLUMNS = (Column(title="ratio", key="ratio"), Column(title="loss", key="loss", digits=2))
PNG = b"\x89PNG\r\n\x1a\n"
FIGURE = {"value": 2.346, "low": 2.1, "high": 2.5}


def test_figures_are_shown_with_their_interval() -> None:
    assert cell_text(FIGURE, 2) == "2.35 [2.10, 2.50]"
    assert short_cell_text(FIGURE, 2) == "2.35 ±0.20"
    assert cell_text(None, 2) == short_cell_text(None, 2) == "-"
    assert cell_text(4.0, 0) == "4"
    assert cell_text(128, 0) == "128"


def test_a_key_that_a_row_lacks_is_a_dash() -> None:
    assert table_texts([{"ratio": 2.0}], COLUMNS) == [["2", "-"]]


def test_page_holds_table_notes_and_command() -> None:
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
    table = Table(rows=[{"ratio": 2.0, "loss": FIGURE}], columns=COLUMNS)
    page = markdown(head, [table], ["Read it so."])
    assert "| ratio | loss |\n|---:|---:|\n| 2 | 2.35 [2.10, 2.50] |\n" in page
    assert "- Read it so." in page
    assert "commit unknown" in page
    assert f"x.txt ({'e' * 12})" in page


@pytest.mark.parametrize("lengths", [(8,), (8, 16)])
def test_a_plot_is_drawn_for_one_length_and_for_several(lengths: tuple[int, ...]) -> None:
    rows = [
        {"length": n, "ratio": ratio, "kind": kind, "series": f"{kind} {ratio}", "loss": FIGURE}
        for n in lengths
        for ratio, kind in ((None, "none"), (2.0, "own"), (2.0, "other"), (4.0, "own"))
    ]
    panels = (Panel(key="loss", title="loss", level=1.0), Panel(key="absent", title="absent"))
    assert plot(rows, panels, title="T").startswith(PNG)


def test_a_plot_over_ratios_has_a_line_for_each_series_and_levels_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []
    figures = require_matplotlib()

    def figure(**options: object) -> object:
        drawn.append(figures(**options))
        return drawn[-1]

    monkeypatch.setattr("icae.evals.plots.require_matplotlib", lambda: figure)
    rows = [
        {"dataset": name, "ratio": ratio, "kind": kind, "series": kind, "f1": FIGURE}
        for name in ("squad", "boolq")
        for kind, ratio in (("full", None), ("none", None), ("memory", 2.0), ("memory", 4.0))
    ]
    panels = [Panel(key="f1", title=n, axis=BY_RATIO, dataset=n) for n in ("squad", "boolq")]
    assert plot(rows, panels, title="T").startswith(PNG)
    for axis in drawn[0].axes:
        looks = {(line.get_color(), line.get_linestyle()) for line in axis.lines}
        assert len(looks) == 3
        assert [label.get_text() for label in axis.get_xticklabels()] == ["2", "4"]
        assert sorted(len(line.get_xdata()) for line in axis.lines) == [2, 2, 2]


def test_a_plot_runs_along_the_axis_of_its_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    figures = require_matplotlib()

    def figure(**options: object) -> object:
        drawn.append(figures(**options))
        return drawn[-1]

    monkeypatch.setattr("icae.evals.plots.require_matplotlib", lambda: figure)
    rows = [
        {"length": 8, "step": n, "ratio": 2.0, "kind": "own", "series": "own", "loss": FIGURE}
        for n in (10, 0, 5)
    ]
    by_step = Panel(key="loss", title="loss", axis=Axis(key="step", label="steps"))
    plot(rows, (by_step, Panel(key="loss", title="loss")), title="T")
    left, right = drawn[0].axes
    assert left.get_xlabel() == "steps"
    assert left.lines[0].get_xdata().tolist() == [0, 5, 10]
    assert right.get_xlabel() == "context length (tokens)"
