"""Who may use the server, and how much at a time: API keys, of which only hashes are kept.

A key file has one line for each key: its name and the SHA-256 of the key. The name owns
the memories, so a key can be replaced without losing them. Keys are random 256-bit values;
a plain hash of one cannot be searched, so no slow hash is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from icae.errors import ConfigError, RequestError

LOCAL_OWNER = "local"
"""Owner of the memories of a server without keys."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAKE_KEYS = "Make keys with `icae serve-key`."


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Tells who sends a request.

    Attributes:
        names: Digest of a key -> the name that owns its memories. None: everybody who reaches
            the server may use it; for loopback only.
    """

    names: Mapping[str, str] | None = None

    @classmethod
    def load(cls, path: Path) -> Keys:
        """Read a key file.

        Raises:
            ConfigError: If it cannot be read, a line of it is not a key, or it has none.
        """
        names: dict[str, str] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                "The key file cannot be read.", got=f"{path}: {error}", fix=_MAKE_KEYS
            ) from error
        for number, line in enumerate(lines, start=1):
            name, _, digest = line.partition(" ")
            if not line.strip() or line.startswith("#"):
                continue
            if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest.strip()):
                raise ConfigError(
                    "This is no line of a key file.",
                    got=f"{path}, line {number}",
                    expected="a name, a space and the SHA-256 of the key",
                    fix=_MAKE_KEYS,
                )
            names[digest.strip()] = name
        if not names:
            raise ConfigError("There is no key in the key file.", got=str(path), fix=_MAKE_KEYS)
        return cls(names=names)

    def owner(self, authorization: str | None) -> str:
        """Name of the key in the header ``Authorization: Bearer KEY``.

        Raises:
            RequestError: If the key is missing or not known (401).
        """
        if self.names is None:
            return LOCAL_OWNER
        scheme, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip())
        # Each is compared, so that the time does not tell how far a wrong one came.
        found = [name for own, name in self.names.items() if hmac.compare_digest(own, digest)]
        if scheme.lower() != "bearer" or not found:
            raise RequestError(
                "The API key is missing or not known.",
                status=401,
                code="invalid_api_key",
                expected="the header Authorization: Bearer KEY",
            )
        return found[0]


class OwnerLimit:
    """Lets each owner have so many requests at a time; for the thread of the event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    @contextmanager
    def held(self, owner: str) -> Iterator[None]:
        """A request for as long as the block runs.

        Raises:
            RequestError: If the owner has too many already (429).
        """
        if self._taken[owner] >= self._most:
            raise RequestError(
                "This key has too many requests at a time.",
                status=429,
                code="too_many_requests",
                retry_after_s=1,
                expected=f"at most {self._most}",
            )
        self._taken[owner] += 1
        try:
            yield
        finally:
            self._taken[owner] -= 1


def add_key(path: Path, name: str) -> str:
    """Make a key and add its hash to a key file, which is made if there is none.

    Returns:
        The key; it is kept nowhere.

    Raises:
        ConfigError: If the name cannot be used or the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "That is no name for a key.",
            got=repr(name),
            expected="1..64 lower-case letters, digits, - and _",
        )
    key = f"icae-{secrets.token_urlsafe(32)}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8") as file:
            file.write(f"{name} {_digest(key)}\n")
    except OSError as error:
        raise ConfigError(
            "The key file cannot be written.", got=f"{path}: {error.strerror}"
        ) from error
    return key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
