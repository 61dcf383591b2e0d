"""`icae compress` and `icae refine`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import typer

from icae.cli.compress import DEFAULT_STEPS, CompressOptions
from icae.errors import BaseModelError, ConfigError
from icae.memory import Memory


def test_memory_is_written_beside_the_document(icae, loaded, document):
    result = icae("compress", document)
    assert result.exit_code == 0, result.output
    memory = Memory.load(document.with_suffix(".icae"))
    assert memory.documents[0].source == document.read_text()
    assert memory.documents[0].name == "whale.txt"
    assert memory.fidelity is not None
    assert loaded == [{"adapter": None, "base": None, "device": None, "dtype": None}]
    for text in (
        f"{memory.tokens} in {len(memory.spans)} spans",
        f"{memory.slot_count} slots ({memory.ratio:.2f} tokens each)",
        "saved)",
        "% (mean)",
        "Pack my box",
    ):
        assert text in result.stdout


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (["--ratio", "0.25"], "ConfigError"),
        (["--budget", "9", "--ratios", "0.5"], "ConfigError"),
        (["-o", "absent/x.icae"], "InputError"),
    ],
)
def test_what_cannot_work_is_refused_before_the_model_is_loaded(
    error, no_model, document, options, kind
):
    assert error("compress", document, *options)["type"] == kind
    assert error("compress", document.with_name("absent.txt"))["type"] == "InputError"
    assert "URL is not read" in error("compress", "https://example.org/a.html")["message"]


@pytest.mark.parametrize("goal", [["--min-fidelity", "0.9"], ["--budget", "9"], ["--refine", "3"]])
def test_goals_need_measuring(usage, no_model, document, goal):
    assert "measuring" in usage("compress", document, "--no-verify", *goal)


@pytest.mark.parametrize(
    ("ignored", "why"),
    [
        ("--runtime llamacpp", "the cache of --kv"),
        ("--ratios 4,2", "one ratio is --ratio"),
        ("--ratio 8 --min-fidelity 0.9", "choose the ratios"),
        ("--ratio 8 --budget 90", "choose the ratios"),
        ("--prefer speed", "speed is for --min-fidelity"),
        ("--prefer speed --refine 3 --min-fidelity 0.9", "speed is for --min-fidelity"),
        ("--resume", "goes on with --min-fidelity"),
    ],
)
def test_option_that_would_be_ignored_is_refused(usage, no_model, document, ignored, why):
    document.with_suffix(".icae").write_text("precious")
    assert why in usage("compress", document, "--force", *ignored.split())
    assert document.with_suffix(".icae").read_text() == "precious"


def test_budget_too_small_for_the_fidelity_is_said(icae, loaded, document):
    goal = ("--min-fidelity", 0.9, "--prefer", "speed", "--force")
    assert "Warning" not in icae("compress", document, *goal).stderr
    short = icae("compress", document, *goal, "--budget", 20)
    assert "hold less than --min-fidelity 0.9: --budget 20 is too small" in short.stderr
    assert not icae("compress", document, *goal, "--budget", 20, "--quiet").stderr


@pytest.mark.parametrize(
    ("text", "language", "warned"),
    [
        ("Pack my box: 모든 사람은 자유롭게 태어난다.", "en", True),
        ("Pack my box: 모든 사람은 자유롭게 태어난다.", None, False),
        ("Pack my box. Naïve Straße, encyclopædia: 모든 사람.", "en", False),
        ("1234 + 5678", "en", False),
    ],
)
def test_text_in_another_script_is_said_where_the_adapter_is_english(
    icae, loaded, tiny, monkeypatch, document, tmp_path, text, language, warned
):
    monkeypatch.setattr(tiny, "info", replace(tiny.info, data={"language": language}))
    document.write_text(text, encoding="utf-8")
    told = icae("compress", document, "--force").stderr
    assert ("trained on English; measured fidelity" in told) is warned
    assert told == icae("store", "add", document, "--store", tmp_path / "s.db").stderr
    assert not icae("compress", document, "--force", "--quiet").stderr


def test_memory_of_more_spans_than_the_adapter_was_trained_on_is_said(
    icae, loaded, tiny, document, monkeypatch
):
    data = {"context_lengths": {"16": 1.0}, "triplet_context": 40}
    monkeypatch.setattr(tiny, "info", replace(tiny.info, recipe={"data": data}))
    told = icae("compress", document).stderr
    assert "3 spans of slots" not in told  # the adapter was trained on three
    document.write_text(document.read_text() * 5)
    told = icae("compress", document, "--force").stderr
    assert "the adapter was trained on 3 at most" in told
    assert "--full-context" in told
    assert "--full-context" not in icae("compress", document, "--force", "--no-source").stderr


def test_model_options_reach_the_engine(icae, loaded, document):
    options = {"adapter": "a", "base": "b", "device": "cpu", "dtype": "float32"}
    icae("compress", document, *(part for k, v in options.items() for part in (f"--{k}", v)))
    assert loaded == [options]


@pytest.mark.parametrize(
    ("failure", "code"),
    [(BaseModelError("No such model.", fix="Wait."), 1), (KeyboardInterrupt(), 130)],
)
def test_failure_leaves_no_file(icae, document, monkeypatch, failure, code):
    def load(*_: object, **options: object) -> None:
        raise failure

    monkeypatch.setattr("icae.engine.load", load)
    result = icae("compress", document)
    assert result.exit_code == code
    assert result.stderr == (f"{failure}\n" if code == 1 else "\nInterrupted.\n")
    assert not document.with_suffix(".icae").exists()


def test_goals_decide_what_is_refined_and_at_which_ratios(tiny):
    assert CompressOptions().policy(tiny) is CompressOptions().refinement() is None
    policy = CompressOptions(min_fidelity=0.9).policy(tiny)
    assert (policy.min_fidelity, policy.ladder) == (0.9, (4.0, 2.0))
    assert policy.refine.steps == DEFAULT_STEPS
    fast = CompressOptions(min_fidelity=0.9, prefer="speed", ratios="8,2").policy(tiny)
    assert (fast.refine, fast.ladder) == (None, (8.0, 2.0))
    assert CompressOptions(budget=30).policy(tiny).refine is None
    asked = CompressOptions(budget=30, refine=5)
    assert (asked.policy(tiny).refine.steps, asked.refinement()) == (5, None)
    assert CompressOptions(refine=5).refinement().steps == 5


@pytest.mark.parametrize("wrong", [{"min_fidelity": 98.0}, {"budget": 0}])
def test_goals_out_of_range_are_refused(tiny, wrong):
    with pytest.raises(ConfigError):
        CompressOptions(**wrong).policy(tiny)
    with pytest.raises(typer.BadParameter):
        CompressOptions(ratios="four")


def test_budget_bounds_the_memory(payload, loaded, document):
    assert payload("compress", document, "--budget", 20)["positions"] <= 20


def test_stopped_compression_leaves_a_memory_to_go_on_from(
    icae, payload, loaded, document, monkeypatch
):
    goal = ("--min-fidelity", "0.06", "--ratios", "1", "--refine", "20")
    save, saves = Memory.save, []

    def stop(memory: Memory, path: Path) -> None:
        if saves:
            raise KeyboardInterrupt
        saves.append(path)
        save(memory, path)

    with monkeypatch.context() as patched:
        patched.setattr("icae.cli.compress.SAVE_SECONDS", -1.0)
        patched.setattr(Memory, "save", stop)
        stopped = icae("compress", document, *goal)
    assert stopped.exit_code == 130
    assert "--resume" in stopped.stderr
    left = Memory.load(document.with_suffix(".icae"))
    assert left.verbatim_ids.size > 0
    assert payload("compress", document, *goal, "--resume")["fidelity"] >= 0.06


def test_refined_file_keeps_no_text_if_none_was_wanted(icae, loaded, document):
    result = icae("compress", document, "--refine", 2, "--no-source")
    assert result.exit_code == 0, result.output
    memory = Memory.load(document.with_suffix(".icae"))
    assert memory.documents[0].source is None
    assert any(span.refine_steps for span in memory.spans)


def test_refine_touches_only_weak_spans(icae, payload, loaded, tiny, other_memory_file, tmp_path):
    before, content = Memory.load(other_memory_file), other_memory_file.read_bytes()
    better = tmp_path / "better.icae"
    options = ("--min-fidelity", 0.5, "--steps", 2)
    told = payload("refine", other_memory_file, *options, "-o", better)
    assert other_memory_file.read_bytes() == content
    for old, new in zip(before.spans, Memory.load(better).spans, strict=True):
        assert (new.refine_steps > 0) == (old.fidelity < 0.5)
    assert told["refined_spans"] == sum(span.fidelity < 0.5 for span in before.spans) > 0
    assert told["fidelity_before"] == before.fidelity
    assert "refined" in icae("refine", other_memory_file, *options).stdout
    assert other_memory_file.read_bytes() != content
    tiny.verbatim("As it stands.").save(better)
    assert payload("refine", better, *options)["refined_spans"] == 0


def test_study_writes_a_memory_that_learned_and_names_what_it_gained(
    icae, payload, loaded, other_memory_file, tmp_path
):
    questions, studied = tmp_path / "questions.txt", tmp_path / "studied.icae"
    questions.write_text("What is packed?\n\nWith what?\n")
    options = ("--questions", questions, "--steps", 2, "--batch", 2)
    told = payload("study", other_memory_file, "-o", studied, *options)
    assert told["steps"] == 2
    assert told["held_out_kl"] <= told["held_out_kl_before"]
    assert {span.refine_steps for span in Memory.load(studied).spans} == {2}
    assert [path.name for path in tmp_path.glob("*.study")] == []
    result = icae("study", other_memory_file, "-o", studied, *options)
    assert "exists" in result.output
