from __future__ import annotations

import json
import sys

import pytest
import typer

from icae.cli.outcome import Outcome, reported
from icae.errors import IncompatibleMemoryError

ERROR = IncompatibleMemoryError("No fit.", got="adapter a", expected="adapter b", fix="Use b.")


@reported
def fails(as_json: bool) -> Outcome:
    print("before")
    raise ERROR


@reported
def talks(as_json: bool) -> Outcome:
    print("a library talks")
    return Outcome(payload={"n": 1}, show=lambda: print("one"))


def test_error_is_printed_to_stderr_and_exits_with_1(capsys) -> None:
    with pytest.raises(typer.Exit) as exit_info:
        fails(as_json=False)
    out, err = capsys.readouterr()
    assert exit_info.value.exit_code == 1
    assert out == "before\n"
    assert err == str(ERROR) + "\n"


def test_error_under_json_is_also_one_object_on_stdout(capsys) -> None:
    with pytest.raises(typer.Exit) as exit_info:
        fails(as_json=True)
    out, err = capsys.readouterr()
    assert exit_info.value.exit_code == 1
    assert json.loads(out) == {
        "error": {
            "type": "IncompatibleMemoryError",
            "message": "No fit.",
            "got": "adapter a",
            "expected": "adapter b",
            "fix": "Use b.",
        }
    }
    assert str(ERROR) in err


def test_json_keeps_everything_else_off_stdout(capsys) -> None:
    talks(as_json=True)
    out, err = capsys.readouterr()
    assert (out, err) == ('{"n": 1}\n', "a library talks\n")


def test_without_json_the_result_is_shown_and_the_payload_is_not(capsys) -> None:
    talks(as_json=False)
    assert capsys.readouterr().out == "a library talks\none\n"


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 141)])
def test_being_stopped_has_its_own_exit_code(raised, code, capsys) -> None:
    @reported
    def stopped(as_json: bool) -> Outcome:
        raise raised

    with pytest.raises(typer.Exit) as exit_info:
        stopped(as_json=True)
    out, err = capsys.readouterr()
    assert exit_info.value.exit_code == code
    assert out == ""
    assert len(err.split()) <= 1


def test_other_exceptions_are_not_hidden() -> None:
    @reported
    def broken(as_json: bool) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken(as_json=True)
    assert sys.stdout is not sys.stderr
