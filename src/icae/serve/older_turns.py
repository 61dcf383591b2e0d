"""Old turns of conversations as memory, kept for the next question of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from icae.decode.conversation import Conversation
from icae.decode.kept import Kept
from icae.memory import Memory
from icae.serve.jobs import Progressing
from icae.serve.messages import CACHED_BYTES

Compact = Callable[[str, Conversation, str], None]
"""Turns that are not kept word for word leave a conversation of an owner before a question."""


class OlderTurns:
    """What old turns became: every request brings all of them anew."""

    def __init__(self) -> None:
        self._kept: Kept[Memory] = Kept(CACHED_BYTES)

    def fold(
        self, owner: str, told: Conversation, question: str, compact: Compact
    ) -> Progressing[None]:
        """Let old turns leave a conversation, one a step; those that are known leave at once."""
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
            told.keep_turns = len(told.history) - 1
            compact(owner, told, question)
            self._keep(name, told)
        told.keep_turns = keep_turns

    def _keep(self, name: str, told: Conversation) -> None:
        older = told.older
        assert older is not None, "turns have left"
        self._kept.keep(name, told.reader.kv_bytes(older.positions), lambda: older)
