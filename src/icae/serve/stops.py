"""Texts that end an answer, wherever the borders of its tokens are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from icae.decode.answering import TextStream


class StoppedStream:
    """Text of an answer up to the first stop text, of which no part is shown.

    Args:
        tokenizer: Decodes the tokens.
        on_text: Called with each new piece that cannot begin a stop text, or None.
        stops: Texts that end the answer, none of them empty.

    Attributes:
        stopped: Whether one of them came.
    """

    def __init__(
        self, tokenizer: Any, on_text: Callable[[str], None] | None, stops: Sequence[str]
    ) -> None:
        self.stopped = False
        self._on_text, self._stops = on_text, stops
        self._tokenizer = tokenizer
        self._listens = on_text is not None or bool(stops)
        self._stream = TextStream(tokenizer, self._take if self._listens else None)
        self._text = ""
        self._sent = 0

    def add(self, token: int) -> None:
        """Take one token."""
        self._stream.add(token)

    def close(self) -> str:
        """Send what is left and return the whole text."""
        if not self._listens:
            return str(self._tokenizer.decode(self._stream.ids, skip_special_tokens=True))
        self._stream.close()
        self._send(len(self._text))
        return self._text

    def _take(self, piece: str) -> None:
        """More text: the stop text that is whole first ends it, of those the longest."""
        if self.stopped:
            return
        known = len(self._text)
        self._text += piece
        found = [
            (at + len(stop), at)
            for stop in self._stops
            if (at := self._text.find(stop, max(0, known - len(stop) + 1))) >= 0
        ]
        if found:
            self.stopped = True
            self._text = self._text[: min(found)[1]]
            self._send(len(self._text))
        else:
            self._send(len(self._text) - self._held())

    def _held(self) -> int:
        """Characters at the end that may begin a stop text."""
        starts = (stop[:size] for stop in self._stops for size in range(1, len(stop)))
        return max((len(own) for own in starts if self._text.endswith(own)), default=0)

    def _send(self, end: int) -> None:
        if self._on_text is not None and end > self._sent:
            self._on_text(self._text[self._sent : end])
            self._sent = end
