"""The `icae` command: its subcommands, its version, its exit codes."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from icae import __version__
from icae.cli import console
from icae.cli.ask import ask
from icae.cli.chat import chat
from icae.cli.compress import compress
from icae.cli.data_pack import pack
from icae.cli.finetune import finetune
from icae.cli.inspect import inspect
from icae.cli.outcome import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED
from icae.cli.pretrain import pretrain
from icae.cli.reconstruct import reconstruct

app = typer.Typer(
    name="icae",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"icae {__version__}")
        raise typer.Exit


@app.callback()
def icae(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Carry a long context in a quarter of the tokens, without changing the LLM."""
    console.log_to_stderr(logging.WARNING)


@data_app.callback()
def data() -> None:
    """Prepare training data."""


app.command("compress")(compress)
app.command("ask")(ask)
app.command("reconstruct")(reconstruct)
app.command("inspect")(inspect)
app.command("chat")(chat)
app.command("pretrain")(pretrain)
app.command("finetune")(finetune)
app.add_typer(data_app, name="data")
data_app.command("pack")(pack)


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 success, 1 an `IcaeError`, 2 wrong usage, 130 Ctrl-C, 141 closed pipe.
    """
    try:
        app(prog_name="icae")
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        console.silence_output()
        sys.exit(EXIT_BROKEN_PIPE)


if __name__ == "__main__":
    main()
