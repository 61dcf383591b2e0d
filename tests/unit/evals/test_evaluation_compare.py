from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icae.errors import InputError
from icae.evals.bootstrap import mean_figure
from icae.evals.compare import compare, lines, read_result


def figure(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def result(**changes: Any) -> dict[str, Any]:
    losses = [1.0, 2.0, 3.0]
    row = {
        "length": 32,
        "ratio": 4.0,
        "kind": "own",
        "series": "4x",
        "slots": 8,
        "loss": figure(2.0),
        "bleu": figure(10.0, 1.0),
        "per_context": {"loss": losses, "bleu": [1.0, 2.0, 3.0]},
    }
    return {
        "schema": 1,
        "experiment": "reconstruction",
        "seed": 0,
        "data": [{"file": "x.txt", "sha256": "a" * 64}],
        "settings": {"samples": 3},
        "adapter": {"name": "one", "hash": "b" * 64},
        "rows": [row],
        **changes,
    }


def with_losses(losses: list[float], **changes: Any) -> dict[str, Any]:
    made = result(**changes)
    made["rows"][0]["loss"] = figure(float(np.mean(losses)))
    made["rows"][0]["per_context"]["loss"] = losses
    return made


def test_a_figure_that_there_is_not_is_refused() -> None:
    assert [d["figure"] for d in compare(result(), result(), only=["bleu"])["differences"]] == [
        "bleu"
    ]
    with pytest.raises(InputError, match="no such figure") as caught:
        compare(result(), result(), only=["bleu", "nonsense"])
    assert (caught.value.got, caught.value.expected) == ("nonsense", "slots, loss, bleu")
    with pytest.raises(InputError, match="nothing to compare"):
        compare(result(), result(experiment="continuation"))


def test_a_change_of_the_same_contexts_is_paired() -> None:
    found = compare(result(), with_losses([1.5, 2.6, 3.4]))
    loss = next(d for d in found["differences"] if d["figure"] == "loss")
    assert loss["paired"]
    assert loss["change"] == pytest.approx(mean_figure([0.5, 0.6, 0.4], seed=0))
    assert loss["clear"]
    assert loss["row"] == {"length": 32, "ratio": 4.0, "kind": "own"}
    assert found["mismatches"] == []
    other = compare(result(), result(adapter={"name": "two", "hash": "d" * 64}))
    assert [(m["key"], m["meaning"]) for m in other["mismatches"]] == [("adapter", "model")]
    assert other["differences"][0]["paired"]


def test_questions_about_one_context_are_drawn_together(monkeypatch: Any) -> None:
    def answers(scores: list[float]) -> dict[str, Any]:
        row = {"dataset": "squad", "kind": "memory", "f1": figure(float(np.mean(scores)))}
        row["per_question"] = {"group": [0, 0, 1], "f1": scores, "answer": ["a", "b", "c"]}
        return result(rows=[row])

    (change,) = compare(answers([0.0, 0.0, 0.0]), answers([1.0, 0.0, 0.5]))["differences"]
    assert change["paired"]
    assert change["row"] == {"dataset": "squad", "kind": "memory"}
    assert change["change"]["value"] == pytest.approx(0.5)
    assert (change["change"]["low"], change["change"]["high"]) == (
        0.5,
        0.5,
    )  # both contexts gain .5


def test_needles_are_paired_though_their_thirds_are_rounded_and_costs_are_shown() -> None:
    def needles(found: list[float], **numbers: float) -> dict[str, Any]:
        row = {"dataset": "values", "length": 64, "ratio": 4.0, "kind": "memory", **numbers}
        row["found"] = figure(float(np.mean(found)))
        row["per_question"] = {"group": [0, 1], "found": [round(one, 5) for one in found]}
        return result(experiment="needle", rows=[row])

    first = needles([1 / 3, 0.0], seconds=2.0, positions=16.0, empty=0.5)
    found = compare(first, needles([2 / 3, 1 / 3], seconds=1.5, positions=16.0, empty=0))
    seconds, empty, share = sorted(found["differences"], key=lambda d: not d["single"])
    assert (share["figure"], share["paired"], share["single"]) == ("found", True, False)
    assert share["change"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert (seconds["figure"], empty["figure"]) == ("seconds", "empty")  # positions are the same
    assert (seconds["change"]["value"], empty["change"]["value"]) == (-0.5, -0.5)
    assert not seconds["clear"]
    rows = {line.split()[0]: line.split()[1:] for line in lines(found["differences"])}
    assert rows["seconds"] == ["2", "1.5", "-0.5", "-", "-"]
    assert (rows["found"][:3], rows["found"][-1]) == (["0.1667", "0.5", "+0.333"], "higher")


def test_a_figure_that_is_no_mean_of_its_contexts_is_not_paired() -> None:
    bleu = next(d for d in compare(result(), result())["differences"] if d["figure"] == "bleu")
    assert not bleu["paired"]
    assert bleu["change"]["value"] == 0
    assert bleu["change"]["high"] == pytest.approx(np.hypot(1, 1))
    assert not bleu["clear"]


def test_other_data_make_it_another_measurement_and_nothing_is_paired() -> None:
    other = with_losses([1.5, 2.6, 3.4], data=[{"file": "y.txt", "sha256": "c" * 64}])
    found = compare(result(), other)
    (mismatch,) = found["mismatches"]
    assert (mismatch["key"], mismatch["meaning"]) == ("data", "measure")
    assert mismatch["first"] == "file x.txt, sha256 aaaaaaaaaaaa"
    loss = next(d for d in found["differences"] if d["figure"] == "loss")
    assert not loss["paired"]
    assert loss["change"]["low"] == pytest.approx(0.5 - np.hypot(0.1, 0.1))


def test_rows_that_only_one_has_are_named() -> None:
    other = result()
    other["rows"][0] = {**other["rows"][0], "ratio": 8.0}
    found = compare(result(), other)
    assert found["differences"] == []
    assert found["missing"] == [
        "only in A: length 32, ratio 4, kind own",
        "only in B: length 32, ratio 8, kind own",
    ]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"experiment": "x"}'])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError):
        read_result(path)


def test_a_result_beside_itself_does_not_differ(run: Any, settings: Any, tmp_path: Path) -> None:
    run(replace(settings, lengths=(16,)))
    path = tmp_path / "out" / "reconstruction.json"
    found = compare(read_result(path), json.loads(path.read_text()))
    assert len(found["differences"]) > 10
    assert {d["change"]["value"] for d in found["differences"]} == {0.0}
    assert not any(d["clear"] for d in found["differences"])
    assert any(d["paired"] for d in found["differences"])
