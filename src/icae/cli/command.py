"""What makes a function a command: its options, what it prints, how it ends.

A command is a function that returns an `Outcome`. Its parameters are its options, each
declared once: on the function if one command has it, in a frozen dataclass if several do
(`icae.cli.options`). `command` puts the fields of such dataclasses into the signature that
typer reads, and hands the function the built objects.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from icae.cli import console
from icae.errors import IcaeError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object instead of text for people.")
]


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


def command(function: Callable[..., Outcome]) -> Callable[..., None]:
    """Turn a function into a command for typer.

    A parameter whose type is a dataclass becomes one option for each of its fields; a flag
    needs no name of its own (``no_source`` is ``--no-source``). Every command has
    ``--json``; a function that writes its result as it comes asks for it with a parameter
    ``as_json: AsJson = False``.

    Args:
        function: Takes its options by name. Its docstring is the help.

    Returns:
        The command; how it ends is said at `finish`.
    """
    hints = get_type_hints(function, include_extras=True)
    del hints["return"]
    own = inspect.signature(function).parameters
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    options: list[inspect.Parameter] = []
    for name, hint in hints.items():
        if name in groups:
            options += _field_options(groups[name])
        else:
            options.append(_option(name, hint, own[name].default))
    if "as_json" not in hints:
        options.append(_option("as_json", AsJson, False))

    @functools.wraps(function)
    def run(**values: Any) -> None:
        as_json = values["as_json"] if "as_json" in hints else values.pop("as_json")

        def work() -> Outcome:
            built = {
                name: group(**{field.name: values.pop(field.name) for field in fields(group)})
                for name, group in groups.items()
            }
            return function(**built, **values)

        finish(work, as_json=as_json)

    run.__annotations__ = {option.name: option.annotation for option in options}
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return run


def _field_options(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        yield _option(field.name, hints[field.name], _default(field))


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def _option(name: str, hint: Any, default: Any) -> inspect.Parameter:
    """A parameter of the signature; a flag gets its name here, without a ``--no-`` form."""
    if get_origin(hint) is Annotated:
        kind, info = get_args(hint)
        if kind is bool and isinstance(info, OptionInfo) and info.default is ...:
            named = copy.copy(info)
            named.param_decls = (f"--{name.replace('_', '-')}",)
            hint = Annotated[bool, named]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def finish(work: Callable[[], Outcome], *, as_json: bool) -> None:
    """Do the work of a command, print its outcome and exit with its code.

    With JSON, whatever the work or a library prints goes to standard error, and standard
    output gets one object: the payload, or the error.

    Args:
        work: Gives the outcome.
        as_json: Whether JSON is wanted.

    Raises:
        typer.Exit: With 1 after an `IcaeError`, 130 after Ctrl-C, 141 for a closed pipe.
    """
    try:
        _print_outcome(_outcome(work, as_json=as_json), as_json=as_json)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        console.silence_output()
        raise typer.Exit(EXIT_BROKEN_PIPE) from None


def _outcome(work: Callable[[], Outcome], *, as_json: bool) -> Outcome:
    try:
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            return work()
    except IcaeError as error:
        sys.stdout.flush()
        console.report_error(error)
        if as_json:
            console.write_json(console.error_payload(error))
        raise typer.Exit(EXIT_ERROR) from error


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
