"""Where a vLLM server is and how it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from icae.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EngineAddress:
    """A stock vLLM server.

    Attributes:
        url: Its address, with or without ``/v1`` at the end.
        model: Name of the model there, or None for the one that it serves.
        api_key: Its key, or "" where it wants none. Never written anywhere.
        secret: What keeps the cache of one user apart from another's; see `VllmRuntime`.
            Never written anywhere.
        timeout_s: Longest time without a sign of the server, s.

    Raises:
        ConfigError: If the address is no URL, or the time is out of range.
    """

    url: str
    model: str | None = None
    api_key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            found = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            found = False
        if not found:
            raise ConfigError(
                "The address of the vLLM server is no URL.",
                got=self.url,
                expected="for example http://127.0.0.1:8000",
            )
        if self.timeout_s <= 0:
            raise ConfigError(
                "The time to wait for the vLLM server is out of range.",
                got=f"{self.timeout_s:g} s",
                expected="above 0",
            )

    @property
    def base_url(self) -> str:
        """The address that OpenAI clients take, ending in ``/v1``."""
        bare = self.url.rstrip("/")
        return bare if bare.endswith("/v1") else f"{bare}/v1"
