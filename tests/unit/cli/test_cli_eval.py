from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from icae.cli import eval_common
from icae.errors import ConfigError, InputError

pytest.importorskip("icae.evals")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, fake: Any, tmp_path: Path) -> dict[str, Any]:
    """What the experiment was called with; it gives two rows."""
    from icae.evals import Finished
    from icae.evals.tables import Column, Table

    calls: dict[str, Any] = {}

    def run_evaluation(icae: Any, texts: Any, settings: Any, **options: Any) -> Finished:
        calls.update(icae=icae, texts=texts, settings=settings, **options)
        if "failure" in calls:
            raise calls["failure"]
        options["on_progress"](1, 2)
        columns = (
            Column(title="length", key="length"),
            Column(title="loss (nats/token)", key="loss", digits=2),
            Column(title="of no row", key="missing"),
        )
        rows = ({"length": 32, "loss": {"value": 2.35, "low": 2.2, "high": 2.5}}, {"length": 64})
        return Finished(
            payload={"rows": list(rows), "seconds": 1.5},
            tables=(Table(rows=rows, columns=columns),),
            files=(options["folder"] / "x.json",),
        )

    monkeypatch.setattr("icae.evals.evaluate", run_evaluation)
    return calls


@pytest.mark.parametrize(
    ("command", "ratios"),
    [
        ("reconstruction", (2.0, 4.0, 8.0, 16.0)),
        ("continuation", (2.0, 4.0, 8.0, 16.0)),
        ("random-text", (4.0,)),
    ],
)
def test_defaults_are_the_papers_lengths_and_the_span_length(icae, ran, command, ratios) -> None:
    result = icae("eval", command, "texts")
    assert result.exit_code == 0, result.output
    settings = ran["settings"]
    assert settings.name == command
    assert settings.lengths == (100, 200, 300, 400, 500, 512)
    assert settings.ratios == ratios
    assert settings.samples == 64
    assert ran["texts"] == [Path("texts")]
    assert ran["folder"] == Path("eval")
    assert ran["replace"] is False


def test_options_reach_the_experiment(icae, ran, fake, tmp_path) -> None:
    options = ("--lengths", "128,32,32", "--ratios", "8,2.5", "--samples", 6, "--tokens", 16)
    more = ("--seed", 3, "-o", tmp_path, "--force", "--adapter", "a", "--dtype", "float32")
    result = icae("eval", "continuation", "x", "y", *options, *more)
    assert result.exit_code == 0, result.output
    settings = ran["settings"]
    assert settings.lengths == (32, 128)
    assert settings.ratios == (2.5, 8.0)
    assert (settings.samples, settings.tokens, settings.seed) == (6, 16, 3)
    assert ran["texts"] == [Path("x"), Path("y")]
    assert ran["folder"] == tmp_path
    assert ran["replace"] is True
    assert fake.opened == {"adapter": "a", "base": None, "device": None, "dtype": "float32"}


def test_refinement_has_its_own_defaults(icae, ran) -> None:
    result = icae("eval", "refinement", "texts")
    assert result.exit_code == 0, result.output
    settings = ran["settings"]
    assert settings.name == "refinement"
    assert (settings.lengths, settings.ratios) == ((32,), (4.0, 8.0, 16.0))
    assert settings.starts == ("encoder", "chunk-means", "noise")
    assert (settings.steps, settings.every, settings.samples, settings.greedy) == (60, 10, 8, 8)
    assert (settings.kl, settings.learning_rate, settings.seed) == (1.0, 0.08, 0)


def test_refinement_options_reach_the_experiment(icae, ran) -> None:
    options = ("--starts", "noise, encoder,noise", "--steps", 9, "--every", 4, "--samples", 3)
    more = ("--kl", 0, "--learning-rate", 0.1, "--lengths", "16", "--ratios", "2")
    result = icae("eval", "refinement", "x", *options, *more)
    assert result.exit_code == 0, result.output
    settings = ran["settings"]
    assert settings.starts == ("noise", "encoder")
    assert settings.places == (0, 4, 8, 9)
    assert (settings.samples, settings.greedy) == (3, 3)
    assert (settings.kl, settings.learning_rate) == (0.0, 0.1)
    assert (settings.lengths, settings.ratios) == ((16,), (2.0,))


def test_adaptive_options_reach_the_experiment(icae, ran) -> None:
    options = ("--min-fidelities", "0.9,0.5", "--budgets", "-", "--refined", "0.99")
    result = icae("eval", "adaptive", "x", *options, "--steps", 9, "--ratios", "4,8")
    assert result.exit_code == 0, result.output
    settings = ran["settings"]
    assert (settings.name, settings.lengths, settings.ratios) == ("adaptive", (128,), (4.0, 8.0))
    assert (settings.min_fidelities, settings.budgets) == ((0.5, 0.9), ())
    assert (settings.refined, settings.steps) == ((0.99,), 9)


def test_a_share_above_one_is_refused_before_a_model_is_loaded(icae, no_model) -> None:
    result = icae("eval", "adaptive", "x", "--budgets", "0.5,90")
    assert result.exit_code == 1
    assert "--budgets cannot be read" in result.stderr


def test_qa_has_its_own_defaults(icae, ran) -> None:
    result = icae("eval", "qa", "triplets")
    assert result.exit_code == 0, result.output
    settings = ran["settings"]
    assert settings.name == "qa"
    assert settings.ratios == (2.0, 4.0, 8.0, 16.0)
    assert (settings.questions, settings.max_new_tokens, settings.max_context) == (200, 64, None)
    assert len(settings.readers) == 6
    assert settings.upper_bound is None
    assert ran["texts"] == [Path("triplets")]


def test_qa_options_reach_the_experiment(icae, ran) -> None:
    options = ("--questions", 0, "--readers", "memory, no context,memory", "--ratios", "4")
    more = ("--upper-bound", "runs/u", "--max-new-tokens", 9, "--max-context", 99, "--seed", 2)
    result = icae("eval", "qa", "x", "y", *options, *more)
    assert result.exit_code == 0, result.output
    settings = ran["settings"]
    assert settings.questions is None
    assert settings.readers == ("memory", "no context")
    assert settings.upper_bound == Path("runs/u")
    assert (settings.max_new_tokens, settings.max_context, settings.seed) == (9, 99, 2)


def test_an_unknown_reader_is_refused_before_a_model_is_loaded(icae, no_model) -> None:
    result = icae("eval", "qa", "x", "--readers", "memory,oracle")
    assert result.exit_code == 1
    assert "'oracle'" in result.stderr


def test_an_unknown_start_is_refused_before_a_model_is_loaded(icae, no_model) -> None:
    result = icae("eval", "refinement", "x", "--starts", "encoder,zeros")
    assert result.exit_code == 1
    assert "'zeros'" in result.stderr


def test_few_samples_lower_the_number_written_back(icae, ran) -> None:
    icae("eval", "reconstruction", "x", "--samples", 4)
    assert ran["settings"].greedy == 4


def test_table_and_files_are_shown(icae, ran) -> None:
    lines = icae("eval", "random-text", "x").stdout.splitlines()
    assert lines[0].split() == ["length", "loss"]
    assert lines[1].split() == ["32", "2.35", "±0.15"]
    assert lines[2].split() == ["64", "-"]
    assert lines[3] == "eval/x.json"


def test_a_wide_table_is_never_cut(icae, ran, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    line = icae("eval", "random-text", "x").stdout.splitlines()[1]
    assert line.split() == ["32", "2.35", "±0.15"]


def test_json_is_the_result_and_its_files(icae, ran) -> None:
    payload = json.loads(icae("eval", "reconstruction", "x", "--json").stdout)
    assert payload["files"] == ["eval/x.json"]
    assert payload["seconds"] == 1.5


def test_errors_are_reported(icae, ran) -> None:
    ran["failure"] = InputError("The texts are too short.", got="3 tokens")
    result = icae("eval", "reconstruction", "x", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["got"] == "3 tokens"


def test_a_stopped_run_says_how_to_go_on(icae, ran) -> None:
    ran["failure"] = KeyboardInterrupt()
    result = icae("eval", "continuation", "x")
    assert result.exit_code == 130
    assert "same command goes on" in result.stderr


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--lengths", "a"),
        ("--lengths", "2.5"),
        ("--lengths", "100,"),
        ("--ratios", "0.5"),
        ("--ratios", "nan"),
        ("--ratios", ""),
    ],
)
def test_lists_that_cannot_be_read_are_refused_before_a_model_is_loaded(
    icae, no_model, option, text
) -> None:
    result = icae("eval", "reconstruction", "x", option, text)
    assert result.exit_code == 1
    assert f"{option} cannot be read" in result.stderr
    assert repr(text) in result.stderr


def test_numbers_are_sorted_and_each_counts_once() -> None:
    assert eval_common.whole_numbers("300,100,100", "--lengths") == (100, 300)
    assert eval_common.ratio_numbers("4, 2") == (2.0, 4.0)
    with pytest.raises(ConfigError):
        eval_common.ratio_numbers("inf")


def test_trained_rivals_and_held_out_text_reach_the_experiment(icae, ran) -> None:
    folders = ("--trained", "runs/gist", "--trained", "runs/auto")
    texts = ("--texts", "held-out", "--lengths", "32", "--samples", 8, "--greedy", 4)
    result = icae("eval", "rivals", "q.jsonl", *folders, *texts, "--ratios", "2")
    assert result.exit_code == 0, result.output
    settings = ran["settings"]
    assert settings.trained == (Path("runs/gist"), Path("runs/auto"))
    assert settings.texts.paths == (Path("held-out"),)
    assert (settings.texts.lengths, settings.texts.samples, settings.texts.greedy) == ((32,), 8, 4)
    assert icae("eval", "rivals", "q.jsonl").exit_code == 0
    assert (ran["settings"].trained, ran["settings"].texts) == ((), None)
