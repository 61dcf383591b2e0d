"""How a command ends: what it prints, with `--json` or without, and its exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from typing import Any, ParamSpec

import typer

from icae.cli import console
from icae.errors import IcaeError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

P = ParamSpec("P")


def _show_nothing() -> None:
    """Print nothing: the command wrote its result as it came."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command hands back.

    Attributes:
        payload: The JSON object that ``--json`` prints.
        show: Prints the result for people; called without ``--json`` only.
    """

    payload: Mapping[str, Any]
    show: Callable[[], None] = _show_nothing


def reported(command: Callable[P, Outcome]) -> Callable[P, None]:
    """Turn a function that returns an `Outcome` into a command.

    The function takes ``as_json``. With it, whatever the function or a library prints
    goes to standard error, and standard output gets one JSON object: the payload, or the
    error. Exit codes: 1 for an `IcaeError`, 130 for Ctrl-C, 141 for a closed pipe.

    Args:
        command: The function.

    Returns:
        The command, with the same parameters.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs["as_json"])
        try:
            _run(lambda: command(*args, **kwargs), as_json=as_json)
        except KeyboardInterrupt:
            print("\nInterrupted.", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            console.silence_output()
            raise typer.Exit(EXIT_BROKEN_PIPE) from None

    return run


def _run(command: Callable[[], Outcome], *, as_json: bool) -> None:
    """Run a command and print its payload, its result or its error."""
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            outcome = command()
    except IcaeError as error:
        sys.stdout.flush()
        console.report_error(error)
        if as_json:
            console.write_json(console.error_payload(error))
        raise typer.Exit(EXIT_ERROR) from error
    try:
        if as_json:
            console.write_json(outcome.payload)
        else:
            outcome.show()
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        console.silence_output()
        lost = IcaeError("The result cannot be written to standard output.", got=error.strerror)
        console.report_error(lost)
        raise typer.Exit(EXIT_ERROR) from error
