"""The commands of the evaluation: options reach the experiments, results are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icae.cli.eval_common import print_table
from icae.errors import InputError

pytest.importorskip("icae.evals")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, fake: Any) -> dict[str, Any]:
    """What the experiment was called with; it gives two rows."""
    from icae.evals import Finished
    from icae.evals.tables import Table

    calls: dict[str, Any] = {}

    def evaluate(icae: Any, texts: Any, experiment: Any, **options: Any) -> Finished:
        calls.update(icae=icae, texts=texts, experiment=experiment, **options)
        if "failure" in calls:
            raise calls["failure"]
        options["on_progress"](1, 2)
        columns = {"length": "length", "gain": "gain (tokens)", "missing": "of no row"}
        rows = ({"length": 32, "gain": {"value": 2.35, "low": 2.2, "high": 2.5}}, {"length": 64})
        return Finished(
            payload={"rows": list(rows), "seconds": 1.5},
            tables=(Table(rows=rows, columns=columns),),
            files=(options["folder"] / "x.json",),
        )

    monkeypatch.setattr("icae.evals.evaluate", evaluate)
    return calls


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "continuation": (
        "--lengths 128,32,32 --ratios 8,2.5 --samples 6 --tokens 16 --seed 3",
        {"lengths": (32, 128), "ratios": (2.5, 8.0), "samples": 6, "tokens": 16, "seed": 3},
    ),
    "reconstruction": ("--samples 4", {"samples": 4, "greedy": 4}),
    "refinement": (
        "--steps 9 --every 4 --samples 3 --kl 0 --learning-rate 0.1",
        {"places": (0, 4, 8, 9), "greedy": 3, "kl": 0.0},
    ),
    "slots": ("--lengths 8 --samples 2 --examples 5", {"lengths": (8,), "examples": 2}),
    "needle": (
        "--depths 1,0 --kinds uuid,number --readers memory --min-fidelity 0.8",
        {"depths": (0.0, 1.0), "kinds": ("uuid", "number"), "readers": ("memory",)},
    ),
    "multi-span": ("--spans 4,2 --tokens 9", {"lengths": (1024, 2048), "tokens": 9}),
    "latency": (
        "--sizes 4x128,1x64,4x128 --tokens 5",
        {"sizes": ((4, 128), (1, 64)), "lengths": (64, 128), "samples": 4, "tokens": 5},
    ),
    "qa": (
        "--questions 0 --readers memory,memory --upper-bound u --max-new-tokens 9 --max-context 99",
        {
            **{"questions": None, "readers": ("memory",), "upper_bound": Path("u")},
            **{"max_new_tokens": 9, "max_context": 99},
        },
    ),
    "rivals": ("--trained a --trained b", {"trained": (Path("a"), Path("b")), "texts": None}),
}


def require(experiment: Any, expected: dict[str, Any]) -> None:
    assert {key: getattr(experiment, key) for key in expected} == expected


@pytest.mark.parametrize("name", OPTIONS)
def test_options_reach_the_experiment(icae, ran, name) -> None:
    options, expected = OPTIONS[name]
    result = icae("eval", name, "x", *options.split())
    assert result.exit_code == 0, result.output
    require(ran["experiment"], expected)


def test_scale_of_the_paper_and_held_out_text_reach_their_experiments(icae, ran) -> None:
    assert icae("eval", "latency", "x", "--full").exit_code == 0
    require(ran["experiment"], {"sizes": ((8, 512), (8, 2048), (32, 512)), "tokens": 128})
    texts = ("--texts", "held-out", "--lengths", "32", "--samples", 8, "--greedy", 4)
    assert icae("eval", "rivals", "q.jsonl", *texts).exit_code == 0
    held = {"paths": (Path("held-out"),), "lengths": (32,), "samples": 8, "greedy": 4}
    require(ran["experiment"].texts, held)


def test_model_folder_and_force_are_handed_on(icae, ran, fake, tmp_path) -> None:
    model = ("--adapter", "a", "--dtype", "float32")
    result = icae("eval", "slots", "x", "y", "-o", tmp_path, "--force", *model)
    assert result.exit_code == 0, result.output
    assert (ran["texts"], ran["folder"]) == ([Path("x"), Path("y")], tmp_path)
    assert ran["replace"] is True
    opened = {"adapter": "a", "base": None, "device": None, "dtype": "float32"}
    assert fake.opened == {**opened, "made_by": None}


@pytest.mark.parametrize(
    ("name", "option", "text", "said"),
    [
        ("reconstruction", "--lengths", "a", "--lengths cannot be read"),
        ("reconstruction", "--lengths", "2.5", "--lengths cannot be read"),
        ("reconstruction", "--lengths", "100,", "--lengths cannot be read"),
        ("reconstruction", "--ratios", "0.5", "--ratios cannot be read"),
        ("reconstruction", "--ratios", "nan", "--ratios cannot be read"),
        ("reconstruction", "--ratios", "", "--ratios cannot be read"),
        ("needle", "--depths", "0,2", "--depths cannot be read"),
        *(
            ("latency", "--sizes", text, "--sizes cannot be read")
            for text in ("4", "4x", "0x16", "4x1", "ax2", "")
        ),
    ],
)
def test_what_cannot_be_read_is_refused_before_a_model_is_loaded(
    icae, no_model, name, option, text, said
) -> None:
    result = icae("eval", name, "x", option, text)
    assert result.exit_code == 1
    assert said in result.stderr


def test_table_and_files_are_shown_and_never_cut(icae, ran, monkeypatch) -> None:
    for columns in ("80", "12"):
        monkeypatch.setenv("COLUMNS", columns)
        shown = icae("eval", "random-text", "x").stdout
        figures = ["length", "gain", "32", "2.35", "±0.15", "64", "-", "eval/x.json"]
        assert sorted(shown.split()) == sorted(figures)
        assert len(shown.splitlines()) == (4 if columns == "80" else 5)
    payload = json.loads(icae("eval", "random-text", "x", "--json").stdout)
    assert (payload["files"], payload["seconds"]) == (["eval/x.json"], 1.5)


def test_headings_take_lines_before_a_table_is_wider_than_the_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    titles = [
        "length",
        "memory slots",
        "token accuracy",
        "greedy BLEU-4",
        "median BLEU-4",
        "AE loss",
    ]
    print_table([*titles, "exact prefix", "questions judged"], [["0.5"] * 8])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[-1] for line in lines] == ["questions", "judged", "0.5"]
    print_table([*titles, "exact prefix", "questions judged"], [["0.708 ±0.125"] * 8])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[-1] for line in lines] == ["questions", "judged", "0.708", "±0.125"]
    monkeypatch.setenv("COLUMNS", "200")
    print_table(titles, [["0.5"] * 6])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_errors_are_reported_and_a_stopped_run_says_how_to_go_on(icae, ran) -> None:
    ran["failure"] = InputError("The texts are too short.", got="3 tokens")
    result = icae("eval", "reconstruction", "x", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["got"] == "3 tokens"
    ran["failure"] = KeyboardInterrupt()
    result = icae("eval", "continuation", "x")
    assert result.exit_code == 130
    assert "same command goes on" in result.stderr


def write_result(path: Path, value: float, **changes: Any) -> Path:
    figure = {"value": value, "low": value - 0.1, "high": value + 0.1}
    row = {"length": 32, "ratio": 4.0, "kind": "own", "loss": figure, "bleu": figure}
    head = {"schema": 1, "experiment": "reconstruction", "seed": 0, "adapter": {"name": "a"}}
    path.write_text(json.dumps({**head, "rows": [row], **changes}))
    return path


def test_two_results_are_compared_without_a_model(icae, no_model, tmp_path) -> None:
    first = write_result(tmp_path / "a.json", 2.0)
    second = write_result(tmp_path / "b.json", 1.5, adapter={"name": "b"}, seed=1)
    result = icae("eval", "compare", first, second, "--only", "loss")
    assert result.exit_code == 0, result.output
    assert "seed differs (not the same measurement" in result.stdout
    assert "adapter differs (what is compared)" in result.stdout
    shown = result.stdout.splitlines()
    line = shown[next(i for i, line in enumerate(shown) if "ratio 4" in line) + 1]
    assert line.split() == ["loss", "2", "1.5", "-0.5", "~[-0.641,", "-0.359]", "lower"]
    assert max(map(len, shown)) <= 80
    assert "bleu" not in result.stdout
    payload = json.loads(icae("eval", "compare", first, second, "--json").stdout)
    assert payload["comparable"] is False
    assert [d["clear"] for d in payload["differences"]] == [True, True]
    (tmp_path / "c.json").write_text("[]")
    result = icae("eval", "compare", tmp_path / "c.json", first)
    assert result.exit_code == 1
    assert "no result of icae eval" in result.stderr


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the judge was called with."""
    from icae.evals import Finished

    calls: dict[str, Any] = {}

    def judge_answers(first: Any, second: Any, service: Any, **options: Any) -> Finished:
        calls.update(names=(first.name, second.name), service=service, **options)
        return Finished(payload={"rows": []}, tables=(), files=(options["files"].path(".json"),))

    monkeypatch.setattr("icae.evals.judge.judge_answers", judge_answers)
    return calls


def qa_result(path: Path) -> Path:
    single = {"group": [0], "prompt": ["p"], "reference": ["r"], "answer": ["a"]}
    rows = [
        {"dataset": "d", "kind": kind, "ratio": ratio, "per_question": single}
        for kind, ratio in (("memory", 4.0), ("own summary", 4.0), ("full context", None))
    ]
    path.write_text(json.dumps({"experiment": "qa", "rows": rows}))
    return path


def test_one_result_sets_memory_against_full_context_and_two_adapters_side_by_side(
    icae, no_model, judged, tmp_path, monkeypatch
) -> None:
    first, second = qa_result(tmp_path / "a.json"), qa_result(tmp_path / "b.json")
    monkeypatch.setenv("MY_KEY", "secret")
    service = ("--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "m")
    key, out = ("--api-key-env", "MY_KEY"), tmp_path / "out"
    result = icae("eval", "judge", first, first, *service, *key, "-o", out)
    assert result.exit_code == 0, result.output
    assert judged["names"] == ("memory 4x", "full context")
    assert (judged["service"].model, judged["files"].folder) == ("m", out)
    assert judged["service"].api_key == "secret"
    assert "secret" not in result.output
    assert icae("eval", "judge", first, second, *service, *key).exit_code == 0
    assert judged["names"][1] == "memory 4x"
    options = ("--second-reads", "own summary", "--ratio", 4)
    assert icae("eval", "judge", first, first, *service, *key, *options).exit_code == 0
    assert judged["names"][1] == "own summary 4x"


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch, fake: Any) -> dict[str, Any]:
    """What the suite was called with; one experiment is done, one skipped."""
    from icae.evals import Finished

    calls: dict[str, Any] = {}

    def run_suite(suite: Any, engine: Any) -> Finished:
        calls["run"] = suite
        parts = [
            {"name": "reconstruction", "status": "done", "seconds": 90.0},
            {"name": "random-text", "status": "skipped", "reason": "no data"},
        ]
        return Finished(payload={"parts": parts}, tables=(), files=(suite.folder / "report.html",))

    monkeypatch.setattr("icae.evals.suite.Suite.run", run_suite)
    return calls


def test_the_whole_suite_is_quick_unless_told_otherwise(icae, whole) -> None:
    result = icae("eval", "all", "texts", "--questions", "q.jsonl", "--out", "r")
    assert result.exit_code == 0, result.output
    run = whole["run"]
    assert (run.scale, run.texts, run.questions) == ("quick", (Path("texts"),), (Path("q.jsonl"),))
    assert result.stdout.splitlines() == [
        "reconstruction  done in 1 min 30 s",
        "random-text     skipped: no data",
        "r/report.html",
    ]
    assert run.judge is None
    options = ("--full", "--only", "slots, qa", "--judge-url", "http://h/v1", "--judge-model", "m")
    assert icae("eval", "all", "texts", *options).exit_code == 0
    assert (whole["run"].scale, whole["run"].only) == ("full", ("slots", "qa"))
    assert whole["run"].judge.model == "m"


def test_quick_and_full_and_unknown_experiments_are_refused(icae, no_model) -> None:
    assert icae("eval", "all", "x", "--quick", "--full").exit_code == 1
    result = icae("eval", "all", "x", "--only", "slot")
    assert result.exit_code == 1
    assert "no such experiment" in result.stderr
