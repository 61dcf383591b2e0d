from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("no_model")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--host", "no.such.host.invalid"], "this machine alone"),
        (["--engine", "gpu:8000"], "no URL"),
        (["--runtime", "vllm"], "torch or llamacpp without --engine"),
        (["--runtime", "torch", "--engine", "http://gpu:8000"], "vllm with --engine"),
    ],
)
def test_a_server_that_cannot_be_started_says_why_before_the_model_is_loaded(
    error, tmp_path: Path, monkeypatch, options, told
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in str(error("serve", *options))


def test_a_port_that_is_taken_is_told(error, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = error("serve", "--store", tmp_path / "m.db", "--port", port)
    assert f"port {port}" in refused["got"]


def test_without_the_extra_the_user_is_told_to_install_it(error, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "[server]" in error("serve")["fix"]


def test_options_go_before_the_environment_and_that_before_the_file(
    icae, tmp_path: Path, monkeypatch
) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("port: 9001\nratio: 8\nmax_waiting: 3\nengine: http://u:hidden@gpu:1\n")
    monkeypatch.setenv("ICAE_SERVE_RATIO", "2")
    monkeypatch.setenv("ICAE_SERVE_PORT", "9002")
    done = icae("serve", "--config", file, "--port", "9003", "--check-config", "--json")
    found = json.loads(done.stdout)
    told = {name: (one["value"], one["from"]) for name, one in found["settings"].items()}
    assert told["port"] == ("9003", "option")
    assert told["ratio"] == ("2.0", "environment")
    assert told["max-waiting"] == ("3", "file")
    assert told["grace"] == ("30.0", "default")
    assert "hidden" not in done.stdout
    assert (found["wrong"], done.exit_code) == (None, 0)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("prot: 1", "the nearest is port"),
        ("port: many", "--port"),
        ("- 1", "no mapping"),
        ("host: 0.0.0.0", "this machine alone"),
        ("ratio: 0", "ratio"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said(icae, tmp_path: Path, line, told) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(f"{line}\n")
    refused = icae("serve", "--config", file, "--check-config")
    assert refused.exit_code == 2
    assert told in " ".join((refused.stdout + refused.stderr).replace("\u2502", " ").split())
