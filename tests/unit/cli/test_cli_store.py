from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from icae.memory import Memory
from icae.store import open_store

NEEDLE = "A golden needle lies in the stack of hay behind the old barn near the river. " * 3


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "memories.db"


@pytest.fixture
def files(tmp_path, monkeypatch) -> SimpleNamespace:
    """Two documents in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    Path("docs/hay.txt").write_text(NEEDLE)
    Path("docs/fox.txt").write_text("The quick brown fox jumps over the lazy dog. " * 4)
    return SimpleNamespace(hay="docs/hay.txt", fox="docs/fox.txt")


@pytest.fixture
def filled(icae, fake, files, at) -> Path:
    result = icae("store", "add", files.hay, files.fox, "--store", at)
    assert result.exit_code == 0, result.output
    return at


@pytest.fixture
def three(icae, filled) -> Path:
    """A third document: of two, every word is as rare as any other."""
    Path("docs/moon.txt").write_text("Some moons circle planets.")
    assert icae("store", "add", "docs/moon.txt", "--store", filled).exit_code == 0
    return filled


def payload(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def error(result):
    assert result.exit_code == 1, result.output
    return json.loads(result.stdout)["error"]


def test_documents_are_compressed_and_named_by_their_paths(icae, fake, files, at) -> None:
    result = icae("store", "add", files.hay, files.fox, "-s", at, "--ratio", 2, "--json")
    added = payload(result)["added"]
    assert [(one["name"], one["new"]) for one in added] == [(files.hay, True), (files.fox, True)]
    assert [(one["ratio"], one["verify"]) for one in fake.compressed] == [(2.0, True)] * 2
    with open_store(str(at)) as store:
        assert store.load(files.hay).documents[0].source == NEEDLE


def test_document_that_is_there_is_not_compressed_again(icae, fake, files, filled) -> None:
    again = payload(icae("store", "add", files.hay, "--store", filled, "--json"))["added"]
    assert (again[0]["new"], again[0]["replaced"]) == (False, None)
    assert len(fake.compressed) == 2


@pytest.mark.parametrize(
    "more",
    [
        ["--min-fidelity", "0.9", "--prefer", "speed"],
        ["--min-fidelity", "0.95", "--prefer", "speed"],
        ["--min-fidelity", "0.9"],
        ["--budget", "30"],
        ["--refine", "5"],
        ["--ratio", "2"],
    ],
)
def test_policy_is_part_of_the_address(icae, fake, files, filled, more) -> None:
    first = payload(icae("store", "add", files.hay, "-s", filled, "--json", *more))["added"][0]
    again = payload(icae("store", "add", files.hay, "-s", filled, "--json", *more))["added"][0]
    assert first["replaced"] is not None  # the memory made without these options
    assert (again["new"], again["key"]) == (False, first["key"])
    assert len(fake.compressed) == 3
    assert len(fake.refined) == (more[0] == "--refine")


def test_policy_of_a_stored_document_reaches_the_compressor_and_is_shown(
    icae, fake, files, at
) -> None:
    icae("store", "add", files.hay, "-s", at, "--min-fidelity", "0.9", "--budget", "30")
    (policy,) = fake.policies
    assert (policy.min_fidelity, policy.budget, policy.ladder) == (0.9, 30, (4.0, 2.0))
    settings = payload(icae("store", "show", files.hay, "-s", at, "--json"))["settings"]
    assert (settings["min_fidelity"], settings["budget"], settings["ratios"]) == (0.9, 30, "4,2")
    assert settings["refine.steps"] == policy.refine.steps


def test_stored_policy_needs_measuring(icae, fake, files, at) -> None:
    result = icae("store", "add", files.hay, "-s", at, "--no-verify", "--budget", "9")
    assert result.exit_code == 2
    assert "measuring" in result.stderr


def test_changed_document_takes_the_name_over(icae, fake, files, filled) -> None:
    Path(files.hay).write_text("Another text.")
    result = icae("store", "add", files.hay, "--store", filled)
    assert "added; was " in result.stdout


def test_memory_file_is_added_without_a_model(icae, no_engine, memory_file, at) -> None:
    added = payload(icae("store", "add", memory_file, "--name", "notes", "-s", at, "--json"))
    assert [one["name"] for one in added["added"]] == ["notes"]


def test_memory_file_of_a_document_has_the_key_of_the_document(icae, fake, files, filled) -> None:
    icae("compress", files.hay, "-o", "hay.icae")
    added = payload(icae("store", "add", "hay.icae", "--store", filled, "--json"))["added"]
    assert added[0]["new"] is False


def test_standard_input_needs_a_name(icae, fake, at) -> None:
    assert icae("store", "add", "-", "--store", at, stdin="text").exit_code == 2
    result = icae("store", "add", "-", "--store", at, "--name", "typed", "--json", stdin="text")
    assert payload(result)["added"][0]["name"] == "typed"


@pytest.mark.parametrize("options", [["--name", "one"], []], ids=["one-name", "twice"])
def test_name_for_several_files_is_a_usage_error(icae, no_engine, files, at, options) -> None:
    second = files.fox if options else files.hay
    result = icae("store", "add", files.hay, second, "--store", at, *options)
    assert result.exit_code == 2
    assert not at.exists()


def test_files_before_a_bad_one_are_kept(icae, fake, files, at) -> None:
    result = icae("store", "add", files.hay, "absent.txt", "--store", at, "--json")
    assert error(result)["type"] == "InputError"
    with open_store(str(at)) as store:
        assert store.get(files.hay)


def test_list_shows_names_figures_and_sum(icae, filled) -> None:
    shown = icae("store", "list", "--store", filled).stdout
    assert "docs/hay.txt" in shown
    assert "2 memories, " in shown
    memories = payload(icae("store", "list", "--store", filled, "--json"))["memories"]
    assert [one["names"] for one in memories] == [["docs/fox.txt"], ["docs/hay.txt"]]


def test_store_can_come_from_the_environment(icae, filled, monkeypatch) -> None:
    monkeypatch.setenv("ICAE_STORE", str(filled))
    assert "docs/hay.txt" in icae("store", "list").stdout


def test_show_describes_one_memory_and_takes_it_out(icae, filled, tmp_path) -> None:
    out = tmp_path / "out.icae"
    shown = icae("store", "show", "docs/hay.txt", "--store", filled, "-o", out).stdout
    for part in ("docs/hay.txt", "ratio 4.0", "fake (bbbb)", "tiny (aaaa)"):
        assert part in shown
    assert Memory.load(out).documents[0].source == NEEDLE
    assert icae("store", "show", "docs/hay.txt", "--store", filled, "-o", out).exit_code == 1
    again = icae("store", "show", "docs/hay.txt", "-s", filled, "-o", out, "--force", "--json")
    assert payload(again)["output"] == str(out)


def test_search_finds_the_passage(icae, filled) -> None:
    shown = icae("store", "search", "golden needle", "--store", filled).stdout
    assert shown.startswith("docs/hay.txt [0:")
    hits = payload(icae("store", "search", "NEEDLE?", "--store", filled, "--json"))["hits"]
    assert [hit["document"] for hit in hits] == ["docs/hay.txt"]
    assert "golden needle" in hits[0]["snippet"]


def test_search_that_finds_nothing_says_so(icae, filled) -> None:
    result = icae("store", "search", "zebra", "--store", filled)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Nothing was found" in result.stderr


def test_removed_name_is_collected(icae, filled) -> None:
    removed = payload(icae("store", "rm", "docs/hay.txt", "--store", filled, "--json"))["removed"]
    assert removed[0]["names"] == ["docs/hay.txt"]
    assert "no name" in icae("store", "list", "--store", filled).stdout
    assert payload(icae("store", "gc", "--store", filled, "--json"))["memories"] == 1
    assert icae("store", "gc", "--store", filled).stdout.startswith("0 memories dropped")


def test_memory_is_removed_by_its_key(icae, filled) -> None:
    key = payload(icae("store", "show", "docs/hay.txt", "-s", filled, "--json"))["key"]
    assert icae("store", "rm", "--key", key[:12], "--store", filled).exit_code == 0
    assert len(payload(icae("store", "list", "-s", filled, "--json"))["memories"]) == 1


def test_sound_store_verifies(icae, filled) -> None:
    assert icae("store", "verify", "--store", filled).stdout == "2 memories, no problem\n"
    assert payload(icae("store", "verify", "-s", filled, "--json"))["problems"] == []


def test_damaged_store_fails_to_verify(icae, filled) -> None:
    with open_store(str(filled)) as store:
        store._db.execute("UPDATE contents SET data = zeroblob(length(data))")
    failure = error(icae("store", "verify", "--store", filled, "--json"))
    assert failure["type"] == "StoreError"
    assert "2 problems" in failure["message"]
    assert "do not match their digest" in failure["got"]


@pytest.mark.parametrize(
    "command",
    [["list"], ["show", "x"], ["search", "x"], ["rm", "x"], ["verify"], ["gc"]],
    ids=lambda command: command[0],
)
def test_missing_store_is_an_error_and_not_made(icae, no_engine, at, command) -> None:
    assert error(icae("store", *command, "--store", at, "--json"))["type"] == "StoreError"
    assert not at.exists()


def test_question_is_answered_from_the_best_passages_and_cites_them(icae, fake, filled) -> None:
    result = icae("ask", "--store", filled, "Where is the golden needle?")
    assert result.exit_code == 0, result.output
    assert result.stdout.removeprefix("a library talks\n") == "A fox, I think.\n"
    assert f"docs/hay.txt [0:{len(NEEDLE)}]  A golden needle" in result.stderr
    assert fake.asked[0]["memory"].documents[0].source == NEEDLE


def test_json_answer_has_its_sources(icae, fake, three) -> None:
    result = payload(icae("ask", "--store", three, "Where is the needle?", "--json"))
    (source,) = result["sources"]
    place = (source["document"], source["char_start"], source["char_end"])
    assert place == ("docs/hay.txt", 0, len(NEEDLE))
    assert result["mode"] == "memory"


def test_full_context_is_the_text_of_the_passages(icae, fake, filled) -> None:
    icae("ask", "-s", filled, "golden", "--full-context", "--json")
    assert fake.asked[0]["text"] == NEEDLE


def test_every_question_of_a_file_has_its_own_sources(icae, fake, three, tmp_path) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("Needle?\nFox?\n")
    result = payload(icae("ask", "-s", three, "--questions", questions, "--json"))
    documents = [[one["document"] for one in a["sources"]] for a in result["answers"]]
    assert documents == [["docs/hay.txt"], ["docs/fox.txt"]]
    assert result["store"] == str(three)


def test_budget_below_a_passage_is_an_error(icae, fake, filled) -> None:
    result = icae("ask", "-s", filled, "needle", "--budget", 1, "--json")
    assert "budget is too small" in error(result)["message"]


def test_memory_file_beside_a_store_is_a_usage_error(icae, no_engine, filled, memory_file) -> None:
    result = icae("ask", memory_file, "Who?", "--store", filled)
    assert result.exit_code == 2


def test_question_is_asked_for(icae, no_engine, at) -> None:
    assert icae("ask", "--store", at).exit_code == 2


def test_store_works_where_torch_cannot_be_imported(filled) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft'))); "
        "from icae.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "store", "search", "needle", "--store", str(filled)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert "docs/hay.txt" in done.stdout, done.stderr
