"""Old turns of conversations as memory, kept for the next question of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from icae.decode.conversation import Conversation
from icae.decode.kept import Kept
from icae.errors import RequestError
from icae.memory import Memory
from icae.serve.jobs import Progressing
from icae.serve.messages import CACHED_BYTES

Compact = Callable[[str, Conversation, str], None]
"""Turns that are not kept word for word leave a conversation of an owner before a question."""


class OlderTurns:
    """What old turns became: every request brings all of them anew; `count` counts tokens."""

    def __init__(self, count: Callable[[str], Progressing[int]]) -> None:
        self._count = count
        self._kept: Kept[Memory] = Kept(CACHED_BYTES)

    def fold(
        self, owner: str, told: Conversation, question: str, compact: Compact
    ) -> Progressing[None]:
        """Let old turns leave a conversation, one a step; those that are known leave at once.

        Raises:
            RequestError: If one is longer than the decoder ever reads.
        """
        documents = told.documents
        digest = hashlib.sha256(owner.encode())
        if documents is not None:
            digest.update(told.reader.memory_digest(documents).encode())
        names = []
        for turn in told.history[: told.leaving]:
            digest.update(repr(turn).encode())
            names.append(digest.hexdigest())
        kept = [self._kept.get(name) for name in names]
        known = max((i + 1 for i, memory in enumerate(kept) if memory is not None), default=0)
        if known:
            told.older = kept[known - 1]
            del told.history[:known]
        keep_turns = told.keep_turns
        for name in names[known:]:
            yield 0, 0
            yield from self._require_short("\n".join(told.history[0]), told)
            told.keep_turns = len(told.history) - 1
            compact(owner, told, question)
            self._keep(name, told)
        told.keep_turns = keep_turns

    def _require_short(self, text: str, told: Conversation) -> Progressing[None]:
        window = told.reader.decoder.context_window
        tokens = yield from self._count(text)
        if tokens > window:
            raise RequestError(
                "An older turn is too long to be read as memory in one piece.",
                code="context_length_exceeded",
                param="messages",
                got=f"{tokens} tokens",
                expected=f"at most {window}",
                fix="Set auto_compress, or make a memory of its text and refer to that.",
            )

    def _keep(self, name: str, told: Conversation) -> None:
        older = told.older
        assert older is not None, "turns have left"
        self._kept.keep(name, told.reader.kv_bytes(older.positions), lambda: older)
