"""Messages of a conversation: what is said in them, and the bulk of long ones read as memory."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from icae.decode.conversation import turns_of
from icae.decode.kept import Kept
from icae.decode.reader import Turn
from icae.engine import Engine
from icae.errors import RequestError
from icae.memory import Memory, memory_size
from icae.serve.chat_models import ChatRequest
from icae.serve.config import ServerConfig
from icae.serve.jobs import Progressing, Tokenizing, aside, in_slices
from icae.serve.metrics import Metrics

CACHED_BYTES = 256_000_000
"""Most bytes of memories of long messages that are kept for the next turn of a conversation."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a conversation says: (role, text) of each message, and the memories of long ones."""

    texts: Sequence[tuple[str, str]]
    memories: Sequence[Memory]


class Messages:
    """Reads conversations for the model's thread, a slice at a time."""

    def __init__(self, icae: Engine, *, config: ServerConfig, metrics: Metrics) -> None:
        self._icae, self._config, self._metrics = icae, config, metrics
        self._kept: Kept[Memory] = Kept(CACHED_BYTES)
        self._making: set[str] = set()

    @functools.cached_property
    def _tokenizing(self) -> Tokenizing:
        """Not that of documents: a message does not wait for a long one to be tokenized."""
        return Tokenizing(self._icae.compressor)

    def read(self, owner: str, asked: ChatRequest) -> Generator[tuple[int, int], None, Said]:
        """What is said; long messages are compressed, some spans a step."""
        longest = asked.auto_compress
        longest = self._config.longest_message if longest is None else longest
        texts, memories = [], []
        for message in asked.messages:
            text, bulk = message.text if asked.tools_at else message.told, ""
            if longest:
                count = self._tokenizing.count
                split = functools.partial(
                    split_message, message.role, text, longest=longest, count=count
                )
                text, bulk = yield from aside(self._tokenizing.pool, split)
            if bulk:
                memories.append((yield from self._memory_of(owner, bulk)))
            texts.append((message.role, text))
        return Said(texts=texts, memories=memories)

    def _memory_of(self, owner: str, text: str) -> Progressing[Memory]:
        """Memory of a long message; the same text of the same owner is compressed once."""
        key = f"{hashlib.sha256(text.encode()).hexdigest()} {owner}"
        while key in self._making:  # for another answer
            yield 0, 0
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        self._making.add(key)
        try:
            made = yield from self._made(text)
        finally:
            self._making.discard(key)
        self._kept.keep(key, memory_size(made), lambda: made)
        return made

    def count(self, text: str) -> Progressing[int]:
        """How many tokens a text has, counted while the model works for others."""
        return aside(self._tokenizing.pool, lambda: self._tokenizing.count(text))

    def verbatim(self, text: str) -> Progressing[Memory]:
        """A memory of a text as it is."""
        tokens = yield from self._tokenizing.tokens(text)
        return self._icae.compressor.verbatim(tokens, name="instructions")

    def _made(self, text: str) -> Progressing[Memory]:
        tokens = yield from self._tokenizing.tokens(text)
        ratio, window = self._config.ratio, self._icae.decoder.context_window
        if len(tokens.ids) / ratio > window:
            raise RequestError(
                "A message is too long, even as memory.",
                code="context_length_exceeded",
                param="messages",
                got=f"{len(tokens.ids)} tokens at {ratio:g}x",
                expected=f"at most {window} positions",
            )
        compressor = self._icae.compressor
        encode = functools.partial(compressor.encode, ratio=ratio, verify=False)
        memory = yield from in_slices(compressor, tokens, name="message", encode=encode)
        self._metrics.context_tokens.inc(memory.tokens)
        return memory


def split_message(
    role: str, text: str, *, longest: int, count: Callable[[str], int]
) -> tuple[str, str]:
    """Take the bulk of a long message out, so that a long prompt gets short.

    Of what the user says the first and the last paragraph stay text where they are short,
    since one of them usually is the question; what the system says is taken whole.

    A message of at most `longest` tokens, as `count` counts them, stays as it is; a paragraph
    at the start or end of a longer one stays if it has at most half of them.

    Returns:
        The text that stays, and the text that becomes a memory; either may be empty.
    """
    if role == "assistant" or count(text) <= longest:
        return text, ""
    if role != "user":
        return "", text
    for mark in ("\n\n", "\n"):
        parts = [part for part in text.split(mark) if part.strip()]
        last = 1 if len(parts) > 1 and count(parts[-1]) <= longest // 2 else 0
        first = 1 if len(parts) > 1 + last and count(parts[0]) <= longest // 2 else 0
        if first or last:
            kept = [*parts[:first], *parts[len(parts) - last :]]
            return "\n\n".join(kept), mark.join(parts[first : len(parts) - last])
    return text, ""


def without_instructions(said: Sequence[tuple[str, str]]) -> tuple[str, Sequence[tuple[str, str]]]:
    """What the system says before anything else, and the messages after that, unless an answer."""
    first = next(i for i, (role, _) in enumerate(said) if role not in ("system", "developer"))
    if said[first][0] == "assistant":
        return "", said
    return turns_of(said[:first])[0], said[first:]


def conversation(said: Sequence[tuple[str, str]]) -> tuple[str, list[Turn]]:
    """The question that is to be answered, and the turns before it; see `turns_of`.

    Raises:
        RequestError: If an answer comes before anything was said.
    """
    if said[0][0] == "assistant":
        raise RequestError(
            "The conversation starts with an answer.",
            param="messages",
            expected="a message of the system or the user first",
        )
    return turns_of(said)
