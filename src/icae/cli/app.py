"""The `icae` command: its subcommands, its version, its exit codes."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from icae.cli import console
from icae.cli.ask import ask
from icae.cli.bulk import bulk
from icae.cli.chat import chat
from icae.cli.check import check
from icae.cli.command import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED
from icae.cli.compress import compress, refine
from icae.cli.data import build, pack
from icae.cli.demo import demo
from icae.cli.doctor import doctor
from icae.cli.edit import append, edit, merge, slice_memory
from icae.cli.eval import (
    continuation,
    latency,
    memorisation,
    multi_span,
    needle,
    random_text,
    reconstruction,
    refinement,
    slots,
)
from icae.cli.eval_questions import judge, qa, rivals
from icae.cli.eval_reports import all_experiments, compare
from icae.cli.examples import epilog
from icae.cli.inspect import inspect
from icae.cli.mcp import mcp
from icae.cli.official import export_official, import_official
from icae.cli.plan import plan
from icae.cli.push import push
from icae.cli.pwc import build as build_pwc
from icae.cli.reconstruct import reconstruct
from icae.cli.serve import serve, serve_key
from icae.cli.store import add, collect, list_memories, remove, search, show, verify
from icae.cli.study import study
from icae.cli.train import finetune, pretrain
from icae.cli.upgrade import upgrade
from icae.errors import IcaeError
from icae.model import base_files


class _Icae(TyperGroup):
    """The root: where ``--json`` is asked for, wrong usage is told as one object, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["icae.json"] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            message = getattr(error, "format_message", None)  # click's, of wrong usage alone
            if message is not None and ctx.meta["icae.json"]:
                console.write_error("UsageError", IcaeError(message()))
            raise


app = typer.Typer(
    name="icae",
    cls=_Icae,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from icae import __version__

        print(f"icae {__version__}")
        raise typer.Exit


def _help_without_a_command(context: typer.Context) -> None:
    """Print the help of a group that was called alone: asked for, so on standard output."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.callback(invoke_without_command=True)
def icae(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Let code that lies beside a base model's weights run."
        ),
    ] = False,
) -> None:
    """Carry a long context in a quarter of the tokens, without changing the LLM."""
    console.log_to_stderr(logging.WARNING)
    # It warns of a faster kernel for weights of 4 bits even where there are none.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if trust_remote_code:
        base_files.trust_remote_code()
    _help_without_a_command(context)


def _add(group: typer.Typer, **commands: Callable[..., None]) -> None:
    """Add commands to a group; ``_`` in a name stands for ``-``."""
    for name, function in commands.items():
        called = name.replace("_", "-")
        path = called if group is app else f"{group.info.name} {called}"
        group.command(called, epilog=epilog(path))(function)


def _subgroup(name: str, description: str) -> typer.Typer:
    group = typer.Typer(name=name, help=description)
    group.callback(invoke_without_command=True, help=description)(_help_without_a_command)
    app.add_typer(group, name=name)
    return group


_add(app, demo=demo)
_add(app, compress=compress, ask=ask, reconstruct=reconstruct, refine=refine, inspect=inspect)
_add(app, chat=chat, append=append, edit=edit, slice=slice_memory, merge=merge)
_add(app, upgrade=upgrade, check=check)
_add(app, push=push)
_serve = {"auto_envvar_prefix": "ICAE_SERVE"}
app.command("serve", epilog=epilog("serve"), context_settings=_serve)(serve)
_add(app, serve_key=serve_key, mcp=mcp, bulk=bulk, plan=plan, doctor=doctor)
_add(app, pretrain=pretrain, finetune=finetune)
_add(app, study=study)

_store = _subgroup("store", "Keep many memories in one place: add, find, check and drop them.")
_add(_store, add=add, list=list_memories, show=show, search=search)
_add(_store, rm=remove, verify=verify, gc=collect)

_data = _subgroup("data", "Prepare training data.")
_add(_data, pack=pack, build=build)

_pwc = _subgroup("pwc", "Make instruction data: prompts and answers about texts.")
_add(_pwc, build=build_pwc)

_import = _subgroup("import", "Make adapters of weights that other code trained.")
_add(_import, official=import_official)

_export = _subgroup("export", "Write adapters for other code.")
_add(_export, official=export_official)

_eval = _subgroup("eval", "Measure an adapter on held-out text.")
_add(_eval, all=all_experiments, reconstruction=reconstruction, continuation=continuation)
_add(_eval, random_text=random_text, refinement=refinement, slots=slots)
_add(_eval, memorisation=memorisation, multi_span=multi_span, latency=latency, rivals=rivals)
_add(_eval, compare=compare, judge=judge, qa=qa, needle=needle)


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 success, 1 an `IcaeError`, 2 wrong usage, 130 Ctrl-C, 141 closed pipe.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # cp1252, cp949, ASCII: ? for what they lack
    try:
        app(prog_name="icae")
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        console.silence_output()
        sys.exit(EXIT_BROKEN_PIPE)
