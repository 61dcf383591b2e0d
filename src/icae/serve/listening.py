"""Listening, and running the application with uvicorn until the process is told to end."""

from __future__ import annotations

import signal
import socket
from dataclasses import dataclass
from types import FrameType

import uvicorn
from fastapi import FastAPI

from icae.errors import ConfigError
from icae.serve.keys import Keys
from icae.serve.loopback import is_loopback

MAX_CONNECTIONS = 1000
"""Connections beyond these are answered with 503 at once."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the server listens.

    Attributes:
        host: A name or an address of this machine.
        port: A port; 0 for one that is free.
    """

    host: str = "127.0.0.1"
    port: int = 8000


def check_public(address: Address, keys: Keys) -> None:
    """Refuse to be reached by others without keys.

    Raises:
        ConfigError: If anybody could use the server.
    """
    if not keys.required and not is_loopback(address.host):
        raise ConfigError(
            "Without API keys the server listens on this machine alone.",
            got=f"--host {address.host}",
            expected="127.0.0.1, or --keys FILE",
            fix="Make a key with `icae serve-key NAME --keys FILE`, and put TLS in front.",
        )


def listen(address: Address) -> socket.socket:
    """A socket that takes connections.

    Raises:
        ConfigError: If the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            "The server cannot listen there.",
            got=f"{address.host} port {address.port}: {error}",
            expected="an address of this machine and a port that is free",
        ) from error


class _Server(uvicorn.Server):
    """Ends when told to, and does not pass the signal on to the process afterwards."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at once where Ctrl-C comes a second time."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def make_server(app: FastAPI, *, grace_s: float) -> uvicorn.Server:
    """A server whose `run` returns when the process is told to end.

    Requests under way are finished then, for so long; new ones are refused.

    Args:
        app: The application.
        grace_s: How long requests may take to be finished at the end, s.
    """
    return _Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=max(1, round(grace_s)),
        )
    )
