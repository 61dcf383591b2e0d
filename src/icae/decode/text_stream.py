"""Streaming tokens as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class TextStream:
    """Turns tokens into text piece by piece, never cutting a character.

    Args:
        tokenizer: Decodes the tokens.
        on_text: Called with each new piece, or None.
    """

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None] | None) -> None:
        self.tokenizer, self.on_text = tokenizer, on_text
        self.ids: list[int] = []
        self.sent = 0

    def add(self, token: int) -> None:
        """Take one token."""
        self.ids.append(token)
        if self.on_text is not None:
            text = self._text()
            if not text.endswith("�"):
                self._send(text)

    def close(self) -> str:
        """Send what is left and return the whole text."""
        text = self._text()
        if self.on_text is not None:
            self._send(text)
        return text.strip()

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True))

    def _send(self, text: str) -> None:
        if self.on_text is not None and len(text) > self.sent:
            self.on_text(text[self.sent :])
            self.sent = len(text)
