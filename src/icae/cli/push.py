"""`icae push`: an adapter or a memory onto the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from icae.cli import console
from icae.cli.command import Outcome, command


@command
def push(
    *,
    path: Annotated[Path, Argument(metavar="ADAPTER|MEMORY")],
    repository: Annotated[str, Argument(metavar="USER/NAME")],
    private: bool = False,
) -> Outcome:
    """Put an adapter folder or a memory file into a repository of the Hugging Face Hub.

    Whatever takes --adapter takes USER/NAME then, with @REVISION for a branch, tag or commit.

    Args:
        private: Make a new repository private.
    """
    from icae.memory import read_header
    from icae.model.adapter_files import read_info
    from icae.model.hub import push

    if path.is_dir():
        read_info(path)
    else:
        read_header(path)
    address = push(path, repository, private=private)
    payload = {"repository": repository, "commit": address}
    return Outcome(payload=payload, show=lambda: console.results().print(address, soft_wrap=True))
