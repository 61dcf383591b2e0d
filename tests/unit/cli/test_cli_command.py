from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from icae.cli.command import AsJson, Outcome, command
from icae.errors import IncompatibleMemoryError

ERROR = IncompatibleMemoryError("No fit.", got="adapter a", expected="adapter b", fix="Use b.")


@command
def fails(*, as_json: AsJson) -> Outcome:
    print("before")
    raise ERROR


@command
def talks(*, as_json: AsJson) -> Outcome:
    print("a library talks")
    return Outcome(payload={"n": 1}, show=lambda: print("one"))


@pytest.mark.parametrize("as_json", [False, True])
def test_error_is_on_stderr_and_with_json_also_one_object_on_stdout(capsys, as_json):
    with pytest.raises(typer.Exit) as exit_info:
        fails(as_json=as_json)
    out, err = capsys.readouterr()
    assert exit_info.value.exit_code == 1
    assert str(ERROR) in err
    if as_json:
        told = {"message": "No fit.", "got": "adapter a", "expected": "adapter b", "fix": "Use b."}
        assert json.loads(out)["error"] == {"type": "IncompatibleMemoryError", **told}
    else:
        assert (out, err) == ("before\n", f"{ERROR}\n")


def test_stdout_has_the_payload_and_nothing_else_or_what_is_shown(capsys):
    talks(as_json=True)
    assert capsys.readouterr() == ('{"n": 1}\n', "a library talks\n")
    talks(as_json=False)
    assert capsys.readouterr().out == "a library talks\none\n"


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 141)])
def test_being_stopped_has_its_own_exit_code(raised, code, capsys):
    @command
    def stopped(*, as_json: AsJson) -> Outcome:
        raise raised

    with pytest.raises(typer.Exit) as exit_info:
        stopped(as_json=True)
    out, err = capsys.readouterr()
    assert exit_info.value.exit_code == code
    assert out == ""
    assert len(err.split()) <= 1


@dataclass(frozen=True, kw_only=True)
class Drawing:
    no_frame: Annotated[bool, typer.Option(help="Leave the frame out.")] = False
    depth: Annotated[int, typer.Option("--depth", "-d", min=0, metavar="N", help="Depth.")] = 3


@dataclass(frozen=True, kw_only=True)
class Deep(Drawing):
    depth: Annotated[int, typer.Option(min=1, metavar="N", help="Depth.")] = 9


@command
def draw(*, name: Annotated[str, typer.Argument(metavar="NAME")], how: Deep) -> Outcome:
    """Draw a thing."""
    return Outcome(payload={"name": name, "depth": how.depth, "no_frame": how.no_frame})


def test_fields_of_a_dataclass_are_options_and_come_back_as_the_object():
    app = typer.Typer()
    app.command()(draw)
    plain = CliRunner().invoke(app, ["box", "--json"])
    assert json.loads(plain.stdout) == {"name": "box", "depth": 9, "no_frame": False}
    given = CliRunner().invoke(app, ["box", "--json", "--depth", "2", "--no-frame"])
    assert json.loads(given.stdout) == {"name": "box", "depth": 2, "no_frame": True}
    assert CliRunner().invoke(app, ["box", "--depth", "0"]).exit_code == 2
    text = CliRunner().invoke(app, ["--help"]).stdout
    assert "Draw a thing." in text
    assert "Leave the frame out." in text
    assert "--no-no-frame" not in text
