"""Which request is under way: its id in responses, errors and logs, and a line about each."""

from __future__ import annotations

import json
import re
import secrets
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime

from starlette.datastructures import Headers
from starlette.types import Scope

REQUEST_ID = "X-Request-Id"
"""The header that a client may name its request with, and finds the name in again."""

_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_under_way: ContextVar[str | None] = ContextVar("icae_request_id", default=None)
_gone: ContextVar[threading.Event | None] = ContextVar("icae_client_gone", default=None)


def request_id() -> str | None:
    """The id of the request that is under way here; None outside of any."""
    return _under_way.get()


def client_gone() -> threading.Event:
    """Set when the client of the request that is under way here has gone away."""
    return _gone.get() or threading.Event()


def begin_request(scope: Scope) -> str:
    """The id of a request from now on: the client's where it is a sane one, else a new one."""
    asked = Headers(scope=scope).get(REQUEST_ID, "")
    name = asked if _SANE.fullmatch(asked) else f"req_{secrets.token_hex(12)}"
    _under_way.set(name)
    _gone.set(threading.Event())
    return name


def write_access_line(scope: Scope, *, status: int, seconds: float, name: str) -> None:
    """One JSON object on standard error about a request that has been answered.

    The route is the pattern of the path, so a line has nothing that a client made up; the owner
    is null where the request had no key that is known.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "method": scope["method"],
        "route": getattr(scope.get("route"), "path", None),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "owner": scope.get("state", {}).get("owner"),
        "request_id": name,
    }
    sys.stderr.write(json.dumps(line) + "\n")
