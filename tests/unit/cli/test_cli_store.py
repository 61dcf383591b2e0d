"""`icae store`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from icae.memory import Memory
from icae.store import open_store

NEEDLE = "A golden needle lies in the hay. "
HAY, FOX = "docs/hay.txt", "docs/fox.txt"


@pytest.fixture
def at(tmp_path, monkeypatch) -> str:
    """Path of a store to be; two documents lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    Path(HAY).write_text(NEEDLE)
    Path(FOX).write_text("The brown fox jumps.")
    return "memories.db"


@pytest.fixture
def filled(payload, loaded, at) -> str:
    payload("store", "add", HAY, FOX, "--store", at)
    loaded.clear()
    return at


@pytest.fixture
def add(payload):
    """The one file added by a call."""
    return lambda *call: payload("store", "add", *call)["added"][0]


def test_documents_are_compressed_and_named_by_their_paths(payload, loaded, at) -> None:
    added = payload("store", "add", HAY, FOX, "-s", at, "--ratio", 2)["added"]
    assert [(one["name"], one["new"]) for one in added] == [(HAY, True), (FOX, True)]
    assert len(loaded) == 1
    with open_store(at) as store:
        memory = store.load(HAY)
    assert (memory.documents[0].source, memory.spans[0].ratio) == (NEEDLE, 2.0)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (
            ["--min-fidelity", 0.9, "--budget", 300, "--prefer", "speed"],
            {"min_fidelity": 0.9, "budget": 300, "ratios": "4,2"},
        ),
        (["--refine", 1], {"refine.steps": 1}),
        (["--ratio", 2], {"ratio": 2.0, "verify": True}),
    ],
)
def test_policy_is_recorded_and_part_of_the_address(
    add, payload, filled, options, settings
) -> None:
    first = add(HAY, "-s", filled, *options)
    again = add(HAY, "-s", filled, *options)
    assert first["replaced"] is not None  # the memory made without these options
    assert (again["new"], again["key"]) == (False, first["key"])
    assert settings.items() <= payload("store", "show", HAY, "-s", filled)["settings"].items()


def test_changed_document_takes_the_name_over(icae, filled) -> None:
    Path(HAY).write_text("Another text.")
    assert "added; was " in icae("store", "add", HAY, "--store", filled).stdout


def test_memory_file_is_added_without_a_model_under_the_key_of_its_document(
    add, payload, filled, request
) -> None:
    payload("compress", HAY, "-o", "hay.icae")
    request.getfixturevalue("no_model")
    added = add("hay.icae", "--name", "notes", "--store", filled)
    assert (added["name"], added["new"]) == ("notes", False)


def test_names_are_one_for_each_file(usage, add, loaded, at) -> None:
    assert "needs a name" in usage("store", "add", "-", "--store", at, stdin="text")
    assert "one name" in usage("store", "add", HAY, FOX, "--store", at, "--name", "one")
    assert "twice" in usage("store", "add", HAY, HAY, "--store", at)
    assert "measuring" in usage("store", "add", HAY, "-s", at, "--no-verify", "--budget", "9")
    assert not Path(at).exists()


def test_bad_files_are_listed_at_the_end_and_the_others_are_added(icae, error, loaded, at) -> None:
    Path("docs/bad.icae").write_bytes(b"no memory")
    files = (HAY, "absent.txt", "docs/bad.icae", FOX)
    result = icae("store", "add", *files, "--store", at)
    assert result.exit_code == 1
    *_, title, absent, bad = result.stdout.splitlines()
    assert title == "2 of 4 files were not added:"
    assert absent == "absent.txt     The document is missing"
    assert bad == "docs/bad.icae  is not a memory file: a file that starts with b'no memory'"
    told = icae("store", "add", *files, "--store", at, "--json")
    assert told.exit_code == 1
    assert [one["file"] for one in json.loads(told.stdout)["failed"]] == [*files[1:3]]
    with open_store(at) as store:
        assert [record.names for record in store.records()] == [(FOX,), (HAY,)]
    assert error("store", "add", "absent.txt", "--store", at)["type"] == "InputError"


def test_list_fits_the_terminal(add, icae, filled, monkeypatch) -> None:
    long = Path("docs") / ("a-long-name-" * 9 + ".txt")
    long.write_text("Some words.")
    add(long, "-s", filled)
    assert long.as_posix()[:90] in icae("store", "list", "-s", filled).stdout
    screen = io.StringIO()
    terminal = Console(file=screen, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("icae.cli.console.results", lambda: terminal)
    assert icae("store", "list", "-s", filled).exit_code == 0
    lines = screen.getvalue().splitlines()
    assert len(lines) == 1 + 3 + 1
    assert max(map(len, lines)) <= 80
    assert any("docs/a-long" in line and line.rstrip().endswith("…") for line in lines)


def test_passages_that_are_found_fit_80_columns(add, icae, filled) -> None:
    Path("long.txt").write_text("The needle is in the hay of the barn near the inn. " * 6)
    add("long.txt", "-s", filled)
    lines = icae("store", "search", "needle inn", "-s", filled).stdout.splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("    ") or "score" in line for line in lines)


def test_show_describes_one_memory_and_takes_it_out(icae, error, payload, filled) -> None:
    shown = icae("store", "show", HAY, "--store", filled, "-o", "out.icae").stdout
    for part in (HAY, "ratio 4.0", "tiny", "tiny-base"):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert Memory.load("out.icae").documents[0].source == NEEDLE
    assert "--force" in error("store", "show", HAY, "--store", filled, "-o", "out.icae")["fix"]
    again = payload("store", "show", HAY, "-s", filled, "-o", "out.icae", "--force")
    assert again["output"] == "out.icae"


def test_names_and_keys_are_removed_and_collected(icae, payload, filled) -> None:
    removed = payload("store", "rm", HAY, "--store", filled)["removed"]
    assert removed[0]["names"] == [HAY]
    assert "no name" in icae("store", "list", "--store", filled).stdout
    assert payload("store", "gc", "--store", filled)["memories"] == 1
    assert icae("store", "gc", "--store", filled).stdout.startswith("0 memories dropped")
    key = payload("store", "show", FOX, "-s", filled)["key"]
    assert FOX in icae("store", "rm", "--key", key[:12], "--store", filled).stdout
    assert payload("store", "list", "-s", filled)["memories"] == []


def test_verify_tells_a_sound_store_from_a_damaged_one(icae, payload, error, filled) -> None:
    assert icae("store", "verify", "--store", filled).stdout == "2 memories, no problem\n"
    assert payload("store", "verify", "-s", filled)["problems"] == []
    with open_store(filled) as store:
        store._db.execute("UPDATE contents SET data = zeroblob(length(data))")
    told = error("store", "verify", "--store", filled)
    assert told["type"] == "StoreError"
    assert "2 problems" in told["message"]
    assert "do not match their digest" in told["got"]


def test_store_works_where_torch_cannot_be_imported(filled) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft'))); "
        "from icae.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "store", "search", "needle", "--store", filled],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert HAY in done.stdout, done.stderr
