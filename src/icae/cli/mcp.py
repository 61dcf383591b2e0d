"""`icae mcp`: a store as tools of other programs."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

from icae.cli.command import Outcome, command
from icae.cli.memories import maker_of
from icae.cli.options import ModelOptions
from icae.cli.store import StorePath


@command
def mcp(*, store: StorePath, model: ModelOptions) -> Outcome:
    """Let MCP clients add documents to a store and ask about them, over standard input and output.

    A store that is not there is made. The client starts the command and ends it.
    """
    from icae.config.extras import import_extra

    import_extra("mcp", purpose="The MCP server", extra="mcp")
    from icae.connect.mcp_server import make_server
    from icae.store import create_store

    with create_store(store) as opened:
        engine = model.load(maker_of(opened))
    with redirect_stdout(sys.__stdout__):  # the protocol's, with --json too
        make_server(engine, Path(store)).run("stdio")
    return Outcome(payload={"store": store})
