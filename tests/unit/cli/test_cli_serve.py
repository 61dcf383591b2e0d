from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from icae.serve.keys import Keys

pytestmark = pytest.mark.usefixtures("no_model")


def test_serve_key_prints_a_key_that_its_file_knows(icae, payload, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    printed = icae("serve-key", "anna", "--keys", file).stdout.strip()
    told = payload("serve-key", "ben", "--keys", file)
    keys = Keys.load(file)
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
