"""Which text of a plain message becomes a memory, so that a long prompt gets short; pure.

Of a long message of the user its first and its last paragraph stay text where they are
short, since one of them usually is the question; what the system says is taken whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from icae.serve.chat_request import Message


@dataclass(frozen=True, kw_only=True)
class SplitMessage:
    """A message of which some text becomes a memory.

    Attributes:
        kept: The message with the text that stays.
        memory: The text that becomes a memory, or None.
    """

    kept: Message
    memory: str | None


def split_message(message: Message, *, longest: int, count: Callable[[str], int]) -> SplitMessage:
    """Take the bulk of a long message out.

    Args:
        message: The message.
        longest: Most tokens of a message that stays as it is; a paragraph at its start or
            end stays if it has at most half of them.
        count: Number of tokens of a text.
    """
    whole = SplitMessage(kept=message, memory=None)
    if message.role == "assistant" or count(message.text) <= longest:
        return whole
    if message.role == "system":
        return SplitMessage(kept=Message(role="system", text=""), memory=message.text)
    for mark in ("\n\n", "\n"):
        parts = [part for part in message.text.split(mark) if part.strip()]
        last = 1 if len(parts) > 1 and count(parts[-1]) <= longest // 2 else 0
        first = 1 if len(parts) > 1 + last and count(parts[0]) <= longest // 2 else 0
        if first or last:
            kept = [*parts[:first], *parts[len(parts) - last :]]
            middle = mark.join(parts[first : len(parts) - last])
            return SplitMessage(kept=Message(role="user", text="\n\n".join(kept)), memory=middle)
    return whole
