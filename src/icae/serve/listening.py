"""Listening, and running the application with uvicorn until the process is told to end."""

from __future__ import annotations

import functools
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from icae.errors import ConfigError
from icae.serve.connections import Connection
from icae.serve.guards import is_loopback
from icae.serve.keys import Keys
from icae.serve.service import Service

MAX_CONNECTIONS = 1000
"""Connections beyond these are answered with 503 at once."""

ANSWERING_S = 2
"""How long after the grace those are answered whose work was not finished within it, s."""


def check_public(host: str, keys: Keys) -> None:
    """Refuse to be reached by others without keys.

    Raises:
        ConfigError: If anybody could use the server.
    """
    if keys.names is None and not is_loopback(host):
        raise ConfigError(
            "Without API keys the server listens on this machine alone.",
            got=f"--host {host}",
            expected="127.0.0.1, or --keys FILE",
            fix="Make a key with `icae serve-key NAME --keys FILE`, and put TLS in front.",
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; of port 0 one that is free.

    Raises:
        ConfigError: If the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            "The server cannot listen there.",
            got=f"{host} port {port}: {error}",
            expected="an address of this machine and a port that is free",
        ) from error


class _Server(uvicorn.Server):
    """Ends when told to, and does not pass the signal on to the process afterwards.

    `drain` is called when it begins to end: what only waits is told so at once.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what has begun come to its end, for as long as the grace is."""
        self._drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at once where Ctrl-C comes a second time."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def make_server(app: FastAPI, *, grace_s: float) -> uvicorn.Server:
    """A server whose `run` returns when the process is told to end.

    Requests under way are finished then, for at most `grace_s` seconds; new ones are refused.
    """
    service: Service = app.state.service
    return _Server(
        uvicorn.Config(
            app,
            log_config=None,  # its own would close the log handlers of everybody in the process
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=round(grace_s) + ANSWERING_S,
            http=Connection,
        ),
        functools.partial(service.worker.drain, seconds=grace_s),
    )
