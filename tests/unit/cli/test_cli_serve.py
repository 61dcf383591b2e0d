from __future__ import annotations

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
