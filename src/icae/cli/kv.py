"""`--kv`: the key-value cache of a memory in a file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from icae.cli import console
from icae.errors import IcaeError

if TYPE_CHECKING:
    from icae.cli.answering import Mode
    from icae.decode.reader import Reader
    from icae.memory import Memory

Keep = Literal["renew", "always"]
"""Whether a file is written only in place of one that does not fit, or in any case."""


def keeping(kv: bool) -> Keep:
    """What ``--kv`` asks for."""
    return "always" if kv else "renew"


def require_one_file(memories: Sequence[Path], mode: Mode) -> None:
    """Refuse ``--kv`` where there is no one memory file to keep a cache beside.

    Args:
        memories: The memory files asked.
        mode: What the answers are read from.

    Raises:
        typer.BadParameter: If there is not exactly one, or it is not what is read.
    """
    if len(memories) != 1 or mode != "memory":
        raise typer.BadParameter(
            "a key-value cache is kept for one memory file that is asked.", param_hint="--kv"
        )


def use_kv(icae: Reader, memory: Memory, path: Path, *, keep: Keep) -> None:
    """Take the cache beside a memory, and write it where it is missing or does not fit.

    A cache that cannot be written never stands in the way of an answer.

    Args:
        icae: What will be asked.
        memory: The memory.
        path: Its file.
        keep: When to write.
    """
    from icae.decode.kv_file import load_kv, store_kv

    state = load_kv(icae, memory, path)
    if state == "loaded" or (state == "absent" and keep == "renew"):
        return
    try:
        with console.status("Reading the memory"):
            written = store_kv(icae, memory, path)
    except IcaeError as error:
        console.note(f"No key-value cache was kept: {error.message}")
    else:
        console.note(f"Key-value cache kept in {written}")
