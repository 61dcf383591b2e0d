"""Every command has examples in its help, and each of them is one that the command takes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from icae.cli.app import app
from icae.cli.examples import EXAMPLES


def commands(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_every_command_has_examples_and_no_other() -> None:
    assert set(EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_taken_by_their_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("serve.yaml").write_text("port: 8123\n", encoding="utf-8")
    for example in EXAMPLES[name]:
        words = shlex.split(example.rpartition("| ")[2])
        assert " ".join(words[: 1 + len(name.split())]) == f"icae {name}"
        COMMANDS[name].make_context(name, words[1 + len(name.split()) :])


def test_help_ends_with_the_examples(icae: Any) -> None:
    assert "$ icae doctor" in icae("doctor", "--help").stdout
