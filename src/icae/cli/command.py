"""What makes a function a command: its options, what it prints, how it ends.

A command is a function that returns an `Outcome`. Its parameters are its options, each
declared once: on the function, or in a frozen dataclass (`icae.cli.options` has those that
several commands share). `command` puts the fields of such dataclasses into the signature
that typer reads, and hands the function the built objects.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from icae.cli import console
from icae.errors import IcaeError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of text for people.")
]

Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress and no notes; results and errors alone."),
]


def _show_nothing() -> None:
    """Print nothing: the command wrote its result as it came."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command hands back.

    Attributes:
        payload: The JSON object that ``--json`` prints.
        show: Prints the result for people; called without ``--json`` only.
        exit_code: 0, or 1 where not all that was asked for could be done.
    """

    payload: Mapping[str, Any]
    show: Callable[[], None] = _show_nothing
    exit_code: int = 0


def command(function: Callable[..., Outcome]) -> Callable[..., None]:
    """Turn a function into a command for typer.

    A parameter whose type is a dataclass becomes one option for each of its fields. The
    help of the command is the docstring, that of an option its line under ``Args`` or, in
    a dataclass, ``Attributes``. A flag needs no name of its own (``no_source`` is
    ``--no-source``). Every command has ``--quiet`` and ``--json``; a function that writes its
    result as it comes asks for the latter with a parameter or field ``as_json: AsJson = False``.

    With ``--json``, whatever the work or a library prints goes to standard error, and
    standard output gets one object: the payload, or the error. The command exits with 1
    after an `IcaeError`, 130 after Ctrl-C, 141 for a closed pipe.
    """
    hints = get_type_hints(function, include_extras=True)
    del hints["return"]
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    text, described = _read_docstring(function)
    options: list[inspect.Parameter] = []
    for name, own in inspect.signature(function).parameters.items():
        if name in groups:
            options += _field_options(groups[name])
        elif hints[name] is typer.Context:  # which typer fills in
            options.append(own.replace(annotation=typer.Context))
        else:
            options.append(_option(name, hints[name], own.default, described))
    streams = any(option.name == "as_json" for option in options)
    if not streams:
        options.append(_option("as_json", AsJson, False, {}))
    options.append(_option("quiet", Quiet, False, {}))

    def run(*, quiet: bool = False, **values: Any) -> None:
        as_json = values["as_json"] if streams else values.pop("as_json")

        def work() -> Outcome:
            built = {
                name: group(**{field.name: values.pop(field.name) for field in fields(group)})
                for name, group in groups.items()
            }
            return function(**built, **values)

        with console.quietly() if quiet else nullcontext():
            _finish(work, as_json=as_json)

    run.__name__, run.__doc__, run.__module__ = function.__name__, text, function.__module__
    run.__annotations__ = {option.name: option.annotation for option in options}
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return run


def _field_options(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    described: dict[str, str] = {}
    for cls in reversed(group.__mro__):
        described |= _read_docstring(cls)[1]
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield _option(field.name, hints[field.name], default, described)


def _option(name: str, hint: Any, default: Any, described: dict[str, str]) -> inspect.Parameter:
    """A parameter of the signature, with its help; a flag without a ``--no-`` form."""
    kind, given = get_args(hint) if get_origin(hint) is Annotated else (hint, typer.Option())
    info = copy.copy(given)
    info.help = info.help or described.get(name)
    if kind is bool and info.default is ...:
        info.param_decls = (f"--{name.replace('_', '-')}",)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


def _read_docstring(thing: object) -> tuple[str, dict[str, str]]:
    """What a Google docstring says before its sections, and of each argument or attribute."""
    text = inspect.cleandoc(thing.__doc__ or "") + "\n"
    before, *sections = re.split(r"^(\w+):\n", text, flags=re.MULTILINE)
    described: dict[str, str] = {}
    for title, lines in zip(sections[::2], sections[1::2], strict=True):
        if title in ("Args", "Attributes"):
            entries = re.findall(r"^ {4}(\w+): (.*\n(?: {5,}.*\n)*)", lines, re.MULTILINE)
            described = {name: " ".join(words.split()) for name, words in entries}
    return before.strip(), described


def _finish(work: Callable[[], Outcome], *, as_json: bool) -> None:
    """Do the work of a command, print its outcome and exit with its code."""
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            outcome = work()
        _print_outcome(outcome, as_json=as_json)
        if outcome.exit_code:
            raise typer.Exit(outcome.exit_code)
    except IcaeError as error:
        sys.stdout.flush()
        console.report_error(error)
        if as_json:
            console.write_error(type(error).__name__, error)
        raise typer.Exit(EXIT_ERROR) from error
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        console.silence_output()
        raise typer.Exit(EXIT_BROKEN_PIPE) from None


def _print_outcome(outcome: Outcome, *, as_json: bool) -> None:
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
