"""The older way to make a command, until every command is made by `icae.cli.command`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from icae.cli.command import EXIT_BROKEN_PIPE, EXIT_ERROR, EXIT_INTERRUPTED, Outcome, finish

__all__ = ["EXIT_BROKEN_PIPE", "EXIT_ERROR", "EXIT_INTERRUPTED", "Outcome", "reported"]

P = ParamSpec("P")


def reported(command: Callable[P, Outcome]) -> Callable[P, None]:
    """Turn a function that takes ``as_json`` and returns an `Outcome` into a command."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        finish(lambda: command(*args, **kwargs), as_json=bool(kwargs["as_json"]))

    return run
