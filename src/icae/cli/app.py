"""The `icae` command: its subcommands, its version, its exit codes."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from icae import __version__
from icae.cli import console
from icae.cli.append import append
from icae.cli.ask import ask
from icae.cli.bulk import bulk
from icae.cli.chat import chat
from icae.cli.compress import compress
from icae.cli.data_build import build
from icae.cli.data_pack import pack
from icae.cli.edit import edit
from icae.cli.eval_adaptive import adaptive
from icae.cli.eval_all import all_experiments
from icae.cli.eval_compare import compare
from icae.cli.eval_continuation import continuation
from icae.cli.eval_judge import judge
from icae.cli.eval_latency import latency
from icae.cli.eval_memorisation import memorisation
from icae.cli.eval_multi_span import multi_span
from icae.cli.eval_qa import qa
from icae.cli.eval_random_text import random_text
from icae.cli.eval_reconstruction import reconstruction
from icae.cli.eval_refinement import refinement
from icae.cli.eval_rivals import rivals
from icae.cli.eval_slots import slots
from icae.cli.finetune import finetune
from icae.cli.inspect import inspect
from icae.cli.merge import merge
from icae.cli.outcome import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED
from icae.cli.plan import plan
from icae.cli.pretrain import pretrain
from icae.cli.pwc_build import build as build_pwc
from icae.cli.reconstruct import reconstruct
from icae.cli.refine import refine
from icae.cli.serve import serve, serve_key
from icae.cli.slice import slice_memory
from icae.cli.store_add import add
from icae.cli.store_list import list_memories, show
from icae.cli.store_search import search
from icae.cli.store_upkeep import collect, remove, verify

app = typer.Typer(
    name="icae",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(no_args_is_help=True)
eval_app = typer.Typer(no_args_is_help=True)
pwc_app = typer.Typer(no_args_is_help=True)
store_app = typer.Typer(no_args_is_help=True)


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


@pwc_app.callback()
def pwc() -> None:
    """Make instruction data: prompts and answers about texts."""


@store_app.callback()
def store() -> None:
    """Keep many memories in one place: add, find, check and drop them."""


@eval_app.callback()
def evaluation() -> None:
    """Measure an adapter on held-out text."""


app.command("compress")(compress)
app.command("ask")(ask)
app.command("reconstruct")(reconstruct)
app.command("refine")(refine)
app.command("inspect")(inspect)
app.command("chat")(chat)
app.command("append")(append)
app.command("edit")(edit)
app.command("slice")(slice_memory)
app.command("merge")(merge)
app.command("serve")(serve)
app.command("serve-key")(serve_key)
app.add_typer(store_app, name="store")
store_app.command("add")(add)
store_app.command("list")(list_memories)
store_app.command("show")(show)
store_app.command("search")(search)
store_app.command("rm")(remove)
store_app.command("verify")(verify)
store_app.command("gc")(collect)
app.command("bulk")(bulk)
app.command("plan")(plan)
app.command("pretrain")(pretrain)
app.command("finetune")(finetune)
app.add_typer(data_app, name="data")
data_app.command("pack")(pack)
data_app.command("build")(build)
app.add_typer(pwc_app, name="pwc")
pwc_app.command("build")(build_pwc)
app.add_typer(eval_app, name="eval")
eval_app.command("all")(all_experiments)
eval_app.command("reconstruction")(reconstruction)
eval_app.command("continuation")(continuation)
eval_app.command("random-text")(random_text)
eval_app.command("refinement")(refinement)
eval_app.command("adaptive")(adaptive)
eval_app.command("slots")(slots)
eval_app.command("memorisation")(memorisation)
eval_app.command("multi-span")(multi_span)
eval_app.command("latency")(latency)
eval_app.command("rivals")(rivals)
eval_app.command("compare")(compare)
eval_app.command("judge")(judge)
eval_app.command("qa")(qa)


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
