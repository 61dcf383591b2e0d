from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icae.errors import InputError, MissingDependencyError, ResultConflictError
from icae.evals.reconstruction import Reconstruction


class Stop(BaseException):
    """Stands for Ctrl-C."""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The cells that were computed, in order."""
    cells: list[Any] = []
    measure = Reconstruction.measure

    def record(self: Any, material: Any, cell: Any, rows: Any) -> Any:
        cells.append((cell.length, cell.ratio))
        return measure(self, material, cell, rows)

    monkeypatch.setattr(Reconstruction, "measure", record)
    return cells


def without_seconds(path: Path) -> Any:
    payload = json.loads(path.read_text())
    del payload["seconds"]
    for cell in payload["cells"]:
        del cell["seconds"]
    return payload


def stop_half_way(done: int, total: int) -> None:
    if done > 0.55 * total:
        raise Stop


def test_files_hold_rows_and_what_made_them(run: Any, settings: Any, tmp_path: Path) -> None:
    finished = run(settings)
    payload = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert payload == json.loads(json.dumps(finished.payload))
    assert payload["complete"] is True
    assert payload["schema"] == 1
    assert payload["adapter"] == {"name": "tiny", "hash": "a" * 64}
    assert payload["dtype"] == "float32"
    assert len(payload["data"]) == 6
    assert payload["settings"] == {"samples": 4, "greedy": 2, "window": 24}
    assert "torch" in payload["hardware"]
    assert {cell["hardware"] for cell in payload["cells"]} == {payload["hardware"]}
    for key in ("seed", "commit", "icae", "command", "intervals", "base", "tokenizer"):
        assert key in payload
    assert "tok:13a" in payload["bleu"]
    assert payload["seconds"] == pytest.approx(sum(c["seconds"] for c in payload["cells"]))
    page = (tmp_path / "out" / "reconstruction.md").read_text()
    assert page.count("\n| 16 |") == 5
    assert "`icae eval`" in page
    assert (tmp_path / "out" / "reconstruction.png").read_bytes() == settings.title.encode()
    assert [path.name for path in finished.files] == [
        *(f"reconstruction{suffix}" for suffix in (".json", ".md", ".png")),
        "reconstruction-by-ratio.png",
    ]


def test_an_equal_run_computes_nothing_and_changes_nothing(
    run: Any, settings: Any, measured: list[Any], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    run(settings, on_progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == seen[0][1]
    path = tmp_path / "out" / "reconstruction.json"
    before = path.read_bytes()
    assert len(seen) == len(measured) == 6
    run(settings)
    assert len(measured) == 6
    assert path.read_bytes() == before


def test_a_stopped_run_goes_on_and_gives_the_same_file(
    run: Any, settings: Any, measured: list[Any], tmp_path: Path
) -> None:
    run(settings, folder="whole")
    cells = list(measured)
    measured.clear()
    with pytest.raises(Stop):
        run(settings, folder="cut", on_progress=stop_half_way)
    partial = json.loads((tmp_path / "cut" / "reconstruction.json").read_text())
    assert partial["complete"] is False
    assert 0 < len(partial["cells"]) < 6
    assert not (tmp_path / "cut" / "reconstruction.md").exists()
    done = len(partial["cells"])
    measured.clear()

    run(settings, folder="cut")

    assert measured == cells[done:]
    whole = without_seconds(tmp_path / "whole" / "reconstruction.json")
    assert without_seconds(tmp_path / "cut" / "reconstruction.json") == whole


def test_another_ratio_is_added_to_what_is_there_and_none_is_dropped_unasked(
    run: Any, settings: Any, measured: list[Any]
) -> None:
    run(replace(settings, ratios=(2.0,)))
    measured.clear()
    finished = run(settings)
    assert measured == [(16, 4.0), (24, 4.0)]
    assert finished.rows == run(settings, folder="direct").rows
    with pytest.raises(ResultConflictError, match="another run") as caught:
        run(replace(settings, ratios=(2.0,)))
    assert caught.value.got == "a cell of length 16, ratio 4.0"


def test_a_result_of_other_settings_or_texts_is_not_replaced_unasked(
    run: Any, settings: Any, measured: list[Any], corpus: Path
) -> None:
    run(settings)
    other = replace(settings, seed=1)
    with pytest.raises(ResultConflictError) as caught:
        run(other)
    assert (caught.value.got, caught.value.expected) == ("seed 0", "seed 1")
    assert "--force" in str(caught.value.fix)
    with (corpus / "0.txt").open("a") as file:
        file.write(" more")
    with pytest.raises(ResultConflictError, match="another run"):
        run(settings)
    measured.clear()
    assert run(other, replace=True).payload["seed"] == 1
    assert len(measured) == 6


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": []}'])
def test_a_file_that_is_no_result_is_not_replaced_unasked(
    run: Any, settings: Any, tmp_path: Path, content: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "reconstruction.json").write_text(content)
    small = replace(settings, lengths=(16,), ratios=(2.0,))
    with pytest.raises(ResultConflictError, match="another run"):
        run(small)
    assert run(small, replace=True).payload["complete"]


def test_a_folder_that_cannot_be_made_is_reported(run: Any, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        run(settings)


def test_missing_matplotlib_is_said_before_anything_is_measured(
    run: Any, settings: Any, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"Evaluation needs matplotlib"):
        run(settings)
    assert measured == []
