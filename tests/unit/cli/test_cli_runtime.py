"""`--runtime` and `--kv` of the commands that read memories."""

from __future__ import annotations

import json
from typing import Any

import pytest

from icae.decode import kv_file
from icae.errors import InputError


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the file beside a memory: its state, and how often it was written."""
    seen: dict[str, Any] = {"state": "absent", "written": []}
    monkeypatch.setattr(kv_file, "load_kv", lambda icae, memory, path: seen["state"])

    def store(icae: Any, memory: Any, path: Any) -> Any:
        if "error" in seen:
            raise seen["error"]
        seen["written"].append(path)
        return path

    monkeypatch.setattr(kv_file, "store_kv", store)
    return seen


@pytest.mark.parametrize("command", ["ask", "reconstruct", "chat"])
def test_the_runtime_asked_for_is_opened(icae, fake, memory_file, kept, command) -> None:
    question = ["Who?"] if command == "ask" else []

    assert icae(command, memory_file, *question, stdin="").exit_code == 0
    assert fake.opened["runtime"] == "auto"
    icae(command, memory_file, *question, "--runtime", "torch", stdin="")
    assert fake.opened["runtime"] == "torch"


def test_an_unknown_runtime_is_refused(icae, memory_file) -> None:
    result = icae("ask", memory_file, "Who?", "--runtime", "abacus")

    assert result.exit_code == 1
    assert "auto, torch, llamacpp, vllm" in result.stderr


@pytest.mark.parametrize("command", ["ask", "reconstruct", "chat"])
def test_the_engine_asked_for_is_opened_with_what_the_environment_adds(
    icae, fake, memory_file, kept, command, monkeypatch
) -> None:
    question = ["Who?"] if command == "ask" else []
    monkeypatch.setenv("ICAE_ENGINE_KEY", "k3y")
    monkeypatch.setenv("ICAE_ENGINE_SECRET", "s3cret")

    assert icae(command, memory_file, *question, stdin="").exit_code == 0
    assert fake.opened["server"] is None
    options = ["--engine", "http://gpu:8000", "--engine-model", "m"]
    assert icae(command, memory_file, *question, *options, stdin="").exit_code == 0
    server = fake.opened["server"]
    assert (server.base_url, server.model) == ("http://gpu:8000/v1", "m")
    assert (server.api_key, server.secret) == ("k3y", "s3cret")


def test_a_model_of_an_engine_that_is_not_named_is_refused(icae, no_engine, memory_file) -> None:
    result = icae("ask", memory_file, "Who?", "--engine-model", "m")

    assert result.exit_code == 2
    assert "there is no --engine" in result.stderr


def test_an_engine_without_a_url_is_refused(icae, no_engine, memory_file) -> None:
    result = icae("ask", memory_file, "Who?", "--engine", "gpu:8000")

    assert result.exit_code == 1
    assert "no URL" in result.stderr


def test_people_and_programs_are_told_which_runtime_answered(icae, fake, memory_file, kept) -> None:
    assert "fake bfloat16" in icae("ask", memory_file, "Who?").stderr
    made = json.loads(icae("reconstruct", memory_file, "--json").stdout)
    assert made["runtime"] == "fake bfloat16"


@pytest.mark.parametrize(
    ("state", "options", "written"),
    [
        ("absent", [], 0),
        ("absent", ["--kv"], 1),
        ("loaded", ["--kv"], 0),
        ("unusable", [], 1),
    ],
)
def test_a_cache_is_written_when_asked_for_or_in_place_of_one_that_does_not_fit(
    icae, fake, memory_file, kept, state, options, written
) -> None:
    kept["state"] = state

    for command in (["ask", memory_file, "Who?"], ["chat", memory_file]):
        kept["written"].clear()
        assert icae(*command, *options, stdin="").exit_code == 0
        assert kept["written"] == [memory_file] * written


def test_compress_keeps_a_cache_when_asked(icae, fake, kept, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("The quick brown fox jumps over the lazy dog.")

    assert icae("compress", tmp_path / "a.txt").exit_code == 0
    assert kept["written"] == []
    assert icae("compress", tmp_path / "a.txt", "--kv", "--force").exit_code == 0
    assert kept["written"] == [tmp_path / "a.icae"]


def test_a_cache_that_cannot_be_written_does_not_stand_in_the_way(
    icae, fake, memory_file, kept
) -> None:
    kept["error"] = InputError("The cache of this base model cannot be kept.")
    result = icae("ask", memory_file, "Who?", "--kv")

    assert result.exit_code == 0
    assert "No key-value cache was kept" in result.stderr
    assert "A fox, I think." in result.stdout


@pytest.mark.parametrize("options", [["--full-context"], []])
def test_kv_is_refused_where_it_would_do_nothing(
    icae, no_engine, memory_file, other_memory_file, options
) -> None:
    memories = [memory_file] if options else [memory_file, other_memory_file]
    result = icae("ask", *memories, "Who?", "--kv", *options)

    assert result.exit_code == 2
    assert "one memory file" in result.stderr
