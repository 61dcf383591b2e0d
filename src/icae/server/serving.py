"""Running the application with uvicorn until it is told to end."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette

from icae.errors import ConfigError
from icae.server.keys import Keys, NoKeys

MAX_CONNECTIONS = 1000
"""Connections beyond these are answered with 503 at once."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the server listens.

    Attributes:
        host: An address of this machine, or ``localhost``.
        port: A port; 0 for one that is free.
    """

    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def check_public(address: Address, keys: Keys) -> None:
    """Refuse to be reached by others without keys.

    Raises:
        ConfigError: If anybody could use the server.
    """
    if not address.loopback and isinstance(keys, NoKeys):
        raise ConfigError(
            "Without API keys the server listens on this machine alone.",
            got=f"--host {address.host}",
            expected="127.0.0.1, or --keys FILE",
            fix="Make a key with `icae serve-key NAME --keys FILE`, and put TLS in front.",
        )


def make_server(app: Starlette, address: Address, *, grace_s: float = 30.0) -> uvicorn.Server:
    """A server whose `run` returns when the process is told to end.

    Requests under way are finished then, for so long; new ones are refused.

    Args:
        app: The application.
        address: Where it listens.
        grace_s: How long requests may take to be finished at the end, s.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=address.host,
            port=address.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=int(grace_s),
            h11_max_incomplete_event_size=65536,
        )
    )
