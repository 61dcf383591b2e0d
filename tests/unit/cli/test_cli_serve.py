from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path

import pytest

from icae.serve.keys import HashedKeys


@pytest.fixture(autouse=True)
def _model_is_not_loaded(monkeypatch) -> None:
    def load(*_, **options):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("icae.engine.load", load)


def test_serve_key_prints_a_key_that_its_file_knows(icae, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    printed = icae("serve-key", "anna", "--keys", file).stdout.strip()
    told = json.loads(icae("serve-key", "ben", "--keys", file, "--json").stdout)
    keys = HashedKeys.load(file)
    assert keys.owner(f"Bearer {printed}") == "anna"
    assert keys.owner(f"Bearer {told['key']}") == told["name"] == "ben"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--host", "0.0.0.0"], "icae serve-key"),
        (["--host", "no.such.host.invalid"], "this machine alone"),
        (["--keys", "missing.txt"], "key file cannot be read"),
        (["--ratio", "0.5"], "ratio"),
        (["--engine", "gpu:8000"], "no URL"),
    ],
)
def test_a_server_that_cannot_be_started_says_why_before_the_model_is_loaded(
    icae, tmp_path: Path, monkeypatch, options, told
) -> None:
    monkeypatch.chdir(tmp_path)
    result = icae("serve", *options)
    assert result.exit_code == 1
    assert told in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_a_port_that_is_taken_is_told(icae, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = icae("serve", "--store", tmp_path / "m.db", "--port", port)
    assert result.exit_code == 1
    assert f"port {port}" in result.stderr


def test_without_the_extra_the_user_is_told_to_install_it(icae, monkeypatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "uvicorn" else find_spec(name, *rest),
    )
    result = icae("serve")
    assert result.exit_code == 1
    assert "icae[server]" in result.stderr
