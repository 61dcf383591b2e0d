"""What one server takes on."""

from __future__ import annotations

from dataclasses import dataclass, fields

from icae.config.spans import check_ratio
from icae.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """How a server compresses, and bounds that keep its memory and waiting times flat.

    Attributes:
        ratio: Context tokens per slot, where a request does not say.
        longest_message: Messages of more tokens are read as memory; None: none is.
        keep_turns: Turns of a conversation that are read word for word, older ones as memory;
            None: all.
        older_positions: Most decoder positions of older turns.
        body_bytes: Largest body of a request, in bytes.
        body_seconds: Longest time for a body to arrive, s.
        parse_seconds: Longest time for an uploaded file to be read, s.
        waiting: Most chat requests that wait for the model.
        documents: Most documents that are being compressed or wait for it.
        per_owner: Most requests of one key at a time.
        request_seconds: Longest time for an answer, waiting included, s.
        answer_tokens: Longest answer in tokens.
        append_chars: Most characters appended to a memory at a time.
        wait_seconds: How long a request to make or change a memory waits for it to be ready
            before it is told to look later, s.
        kept_bytes: Most bytes of key-value caches of memories that are kept, and as many of
            conversations whose older turns are read as memory.
        grace_s: How long documents may take to be finished when the server is told to end, s.

    Raises:
        ConfigError: If the ratio is out of range, or a bound is not above 0.
    """

    ratio: float = 4.0
    longest_message: int | None = None
    keep_turns: int | None = None
    older_positions: int = 512
    body_bytes: int = 10_000_000
    body_seconds: float = 60.0
    parse_seconds: float = 20.0
    waiting: int = 64
    documents: int = 16
    per_owner: int = 32
    request_seconds: float = 300.0
    answer_tokens: int = 1024
    append_chars: int = 20_000
    wait_seconds: float = 10.0
    kept_bytes: int = 512_000_000
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ConfigError(
                    "A limit of the server is out of range.",
                    got=f"{field.name} = {value}",
                    expected="a number above 0",
                )
