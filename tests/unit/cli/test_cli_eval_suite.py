"""The commands of the evaluation suite beyond the first experiments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("icae.evals")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, fake: Any) -> dict[str, Any]:
    """What the experiment was called with; it gives nothing."""
    from icae.evals import Finished

    calls: dict[str, Any] = {}

    def run_evaluation(icae: Any, texts: Any, settings: Any, **options: Any) -> Finished:
        calls.update(settings=settings, **options)
        return Finished(payload={"rows": []}, tables=(), files=())

    monkeypatch.setattr("icae.evals.evaluate", run_evaluation)
    return calls


def test_slots_are_measured_on_one_full_span_unless_told_otherwise(icae, asked) -> None:
    assert icae("eval", "slots", "x").exit_code == 0
    settings = asked["settings"]
    assert (settings.name, settings.lengths, settings.ratios) == ("slots", (512,), (4.0,))
    assert icae("eval", "slots", "x", "--lengths", "8", "--samples", 2).exit_code == 0
    assert (asked["settings"].lengths, asked["settings"].examples) == ((8,), 2)


def test_memorisation_has_its_own_defaults(icae, asked) -> None:
    assert icae("eval", "memorisation", "x", "--examples", 5).exit_code == 0
    settings = asked["settings"]
    assert (settings.name, settings.lengths, settings.examples) == ("memorisation", (512,), 5)


def test_numbers_of_spans_become_lengths(icae, asked) -> None:
    assert icae("eval", "multi-span", "x", "--spans", "4,2", "--tokens", 9).exit_code == 0
    settings = asked["settings"]
    assert (settings.name, settings.lengths, settings.tokens) == ("multi-span", (1024, 2048), 9)


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
    line = next(line for line in result.stdout.splitlines() if "ratio 4.0" in line)
    assert line.split()[-7:] == ["2", "1.5", "-0.5", "[-0.6414,", "-0.3586]", "*", "both"]
    assert "bleu" not in result.stdout


def test_comparison_as_json_says_whether_it_may_be_made(icae, no_model, tmp_path) -> None:
    first = write_result(tmp_path / "a.json", 2.0)
    second = write_result(tmp_path / "b.json", 2.05, seed=1)
    payload = json.loads(icae("eval", "compare", first, second, "--json").stdout)
    assert payload["comparable"] is False
    assert [d["clear"] for d in payload["differences"]] == [False, False]


def test_a_file_that_is_no_result_is_an_error(icae, no_model, tmp_path) -> None:
    (tmp_path / "a.json").write_text("[]")
    result = icae("eval", "compare", tmp_path / "a.json", tmp_path / "a.json")
    assert result.exit_code == 1
    assert "no result of icae eval" in result.stderr


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the judge was called with."""
    from icae.evals import Finished

    calls: dict[str, Any] = {}

    def judge_answers(run: Any, judge: Any, **options: Any) -> Finished:
        calls.update(run=run, key=judge._client.api_key, **options)
        return Finished(payload={"rows": []}, tables=(), files=(options["folder"] / "judge.json",))

    monkeypatch.setattr("icae.evals.judging.judge_answers", judge_answers)
    return calls


def qa_result(path: Path, *, adapter: str) -> Path:
    single = {"group": [0], "prompt": ["p"], "reference": ["r"], "answer": ["a"]}
    rows = [
        {"dataset": "d", "kind": kind, "ratio": ratio, "per_question": single}
        for kind, ratio in (("memory", 4.0), ("own summary", 4.0), ("full context", None))
    ]
    path.write_text(json.dumps({"experiment": "qa", "rows": rows, "adapter": {"name": adapter}}))
    return path


SERVICE = ("--judge-url", "http://127.0.0.1:9/v1", "--judge-model", "m")


def test_one_result_sets_memory_against_full_context(
    icae, no_model, judged, tmp_path, monkeypatch
) -> None:
    path = qa_result(tmp_path / "qa.json", adapter="a")
    monkeypatch.setenv("MY_KEY", "secret")
    result = icae(
        "eval", "judge", path, path, *SERVICE, "--api-key-env", "MY_KEY", "-o", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    run = judged["run"]
    assert (run.first.name, run.second.name) == ("memory 4x", "full context")
    assert run.service.model == "m"
    assert run.cache == tmp_path / "out" / "judge-replies.jsonl"
    assert judged["key"] == "secret"
    assert "secret" not in result.output


def test_two_results_set_the_same_reader_of_two_adapters_side_by_side(
    icae, no_model, judged, tmp_path
) -> None:
    first = qa_result(tmp_path / "a.json", adapter="a")
    second = qa_result(tmp_path / "b.json", adapter="b")
    assert icae("eval", "judge", first, second, *SERVICE).exit_code == 0
    run = judged["run"]
    assert (run.first.name, run.second.name) == ("memory 4x", "memory 4x")
    assert [s.record["adapter"]["name"] for s in (run.first, run.second)] == ["a", "b"]
    options = ("--second-reads", "own summary", "--ratio", 4)
    assert icae("eval", "judge", first, first, *SERVICE, *options).exit_code == 0
    assert judged["run"].second.name == "own summary 4x"


def test_sizes_of_latency_are_batch_x_length(icae, asked) -> None:
    options = ("--sizes", "4x128,1x64,4x128", "--tokens", 5)
    assert icae("eval", "latency", "x", *options).exit_code == 0
    settings = asked["settings"]
    assert settings.sizes == ((4, 128), (1, 64))
    assert (settings.lengths, settings.samples, settings.tokens) == ((64, 128), 4, 5)
    assert icae("eval", "latency", "x", "--full").exit_code == 0
    settings = asked["settings"]
    assert (settings.sizes, settings.tokens) == (((8, 512), (8, 2048), (32, 512)), 128)


@pytest.mark.parametrize("text", ["4", "4x", "0x16", "4x1", "ax2", ""])
def test_sizes_that_cannot_be_read_are_refused(icae, no_model, text) -> None:
    result = icae("eval", "latency", "x", "--sizes", text)
    assert result.exit_code == 1
    assert "--sizes cannot be read" in result.stderr


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch, fake: Any) -> dict[str, Any]:
    """What the suite was called with; one experiment is done, one skipped."""
    from icae.evals import Finished
    from icae.evals.report import Part
    from icae.evals.suite import SuiteFinished

    calls: dict[str, Any] = {}

    def run_suite(icae: Any, run: Any, **options: Any) -> SuiteFinished:
        calls.update(run=run, **options)
        done = Finished(payload={"seconds": 90.0}, tables=(), files=())
        parts = (
            Part(name="reconstruction", question="q", finished=done),
            Part(name="random-text", question="q", finished=None, reason="no data"),
        )
        files = (options["folder"] / "report.html",)
        return SuiteFinished(payload={"parts": []}, parts=parts, files=files)

    monkeypatch.setattr("icae.evals.suite.run_suite", run_suite)
    return calls


def test_the_whole_suite_is_quick_unless_told_otherwise(icae, whole) -> None:
    result = icae("eval", "all", "texts", "--questions", "q.jsonl", "--out", "r")
    assert result.exit_code == 0, result.output
    run = whole["run"]
    assert (run.scale, run.texts, run.questions) == ("quick", (Path("texts"),), (Path("q.jsonl"),))
    lines = result.stdout.splitlines()
    assert lines == [
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
