"""Checks on an output file, made before the work that fills it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from icae.errors import InputError

IfExists = Literal["refuse", "replace"]


def check_output(path: Path, *, if_exists: IfExists, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output that would destroy something or cannot be written.

    Args:
        path: File to write.
        if_exists: Whether a file that is there already may be replaced.
        inputs: Files that the command reads; never written to.

    Raises:
        InputError: If the file is one of the inputs, is a folder, exists and may not be
            replaced, or lies in a folder that is missing or not writable.
    """
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise InputError(
                "The output is the input itself.", got=str(path), fix="Name another output file."
            )
    if path.is_dir():
        raise InputError(
            "The output is a folder.", got=str(path), expected="the path of a file to write"
        )
    if path.exists() and if_exists == "refuse":
        raise InputError(
            "The output file exists already.",
            got=str(path),
            fix="Add --force to replace it, or name another file with --output.",
        )
    folder = path.parent
    if not folder.is_dir():
        raise InputError(
            "The folder of the output file does not exist.",
            got=str(folder),
            fix="Create it first, or name another file with --output.",
        )
    if not os.access(folder, os.W_OK):
        raise InputError("The folder of the output file is not writable.", got=str(folder))
