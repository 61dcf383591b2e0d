from __future__ import annotations

import json
from pathlib import Path

import pytest

from icae.errors import BaseModelError
from icae.memory import Memory

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, I went to sea. " * 3


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "whale.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_memory_is_written_beside_the_document(icae, fake, document) -> None:
    result = icae("compress", document)
    assert result.exit_code == 0, result.output
    memory = Memory.load(document.with_suffix(".icae"))
    assert memory.documents[0].source == TEXT
    assert fake.compressed[0]["name"] == "whale.txt"
    assert fake.compressed[0]["ratio"] == 4.0
    assert fake.compressed[0]["verify"] is True


def test_summary_says_what_was_saved_and_how_faithful_it_is(icae, fake, document) -> None:
    text = icae("compress", document).stdout
    assert "45 in 3 spans" in text
    assert "12 slots (3.75 tokens each)" in text
    assert "45 kB -> 12 kB (33 kB saved)" in text
    assert "Call me Ishmael." in text
    assert "100.0 %" in text


def test_json_holds_the_figures_and_nothing_else_is_on_stdout(icae, fake, document) -> None:
    result = icae("compress", document, "--json")
    payload = json.loads(result.stdout)
    target = document.with_suffix(".icae")
    assert set(payload) == {
        *("output", "tokens", "slots", "verbatim_tokens", "positions", "ratio", "fidelity"),
        "spans",
        *("kv_bytes", "file_bytes", "seconds", "adapter"),
    }
    assert payload["output"] == str(target)
    assert (payload["tokens"], payload["slots"], payload["ratio"]) == (45, 12, 3.75)
    assert payload["kv_bytes"] == {"full": 45_000, "memory": 12_000, "saved": 33_000}
    assert payload["file_bytes"] == target.stat().st_size
    assert payload["adapter"] == "fake"
    assert payload["spans"][1] == {
        "index": 1,
        "kind": "slots",
        "tokens": 16,
        "slots": 4,
        "positions": 4,
        "ratio": 4.0,
        "char_start": TEXT.index("me Ishmael.", 40),
        "char_end": payload["spans"][2]["char_start"],
        "fidelity": 0.99,
        "refine_steps": 0,
        "refine_seconds": 0.0,
        "written_back": None,
    }


def test_standard_input_needs_an_output(icae, no_engine) -> None:
    result = icae("compress", "-", stdin=TEXT)
    assert result.exit_code == 2
    assert "--output" in result.stderr


def test_standard_input_is_compressed(icae, fake, tmp_path) -> None:
    target = tmp_path / "piped.icae"
    result = icae("compress", "-", "-o", target, stdin=TEXT)
    assert result.exit_code == 0, result.output
    assert Memory.load(target).documents[0].source == TEXT


def test_existing_file_is_refused_before_the_model_is_loaded(icae, no_engine, document) -> None:
    target = document.with_suffix(".icae")
    target.write_text("precious")
    result = icae("compress", document)
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert target.read_text() == "precious"


def test_force_replaces_an_existing_file(icae, fake, document) -> None:
    target = document.with_suffix(".icae")
    target.write_text("old")
    assert icae("compress", document, "--force").exit_code == 0
    assert Memory.load(target).tokens == 45


def test_missing_document_is_refused_before_the_model_is_loaded(icae, no_engine, tmp_path) -> None:
    result = icae("compress", tmp_path / "absent.txt", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "InputError"


def test_ratio_below_1_is_refused_before_the_model_is_loaded(icae, no_engine, document) -> None:
    result = icae("compress", document, "--ratio", "0.25")
    assert result.exit_code == 1
    assert "0.25" in result.stderr


def test_no_source_keeps_the_text_out_of_the_file(icae, fake, document) -> None:
    result = icae("compress", document, "--no-source")
    assert "Call me Ishmael." in result.stdout
    assert Memory.load(document.with_suffix(".icae")).documents[0].source is None


def test_no_verify_measures_nothing_and_says_so(icae, fake, document) -> None:
    assert "not measured" in icae("compress", document, "--no-verify").stdout
    assert fake.compressed[0]["verify"] is False
    result = icae("compress", document, "--no-verify", "--force", "--json")
    assert json.loads(result.stdout)["fidelity"] is None


def test_model_options_reach_the_engine(icae, fake, document) -> None:
    model = ("--adapter", "a", "--base", "b", "--device", "cpu", "--dtype", "float32")
    icae("compress", document, *model)
    assert fake.opened == {"adapter": "a", "base": "b", "device": "cpu", "dtype": "float32"}


def test_failure_leaves_no_file_and_exits_with_1(icae, fake, document) -> None:
    fake.failure = BaseModelError("No such model.", fix="Name another.")
    result = icae("compress", document)
    assert result.exit_code == 1
    assert result.stderr == str(fake.failure) + "\n"
    assert not document.with_suffix(".icae").exists()


def test_ctrl_c_leaves_no_file_and_exits_with_130(icae, fake, document) -> None:
    fake.failure = KeyboardInterrupt()
    result = icae("compress", document)
    assert result.exit_code == 130
    assert "Interrupted" in result.stderr
    assert not document.with_suffix(".icae").exists()
