"""One question put to a memory, as `icae ask` does it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from icae.cli import console
from icae.cli.answering import Mode, answer_payload, note_answer, source_text

if TYPE_CHECKING:
    from icae.config.types import Answer
    from icae.decode.reader import Reader
    from icae.memory import Memory


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How `icae ask` asks.

    Attributes:
        mode: What the answers are read from.
        max_new_tokens: Most tokens of an answer.
        as_json: Whether nothing is printed while the answer is written.
        load: Loads the model.
        note: What stands in the prompt before every question.
    """

    mode: Mode
    max_new_tokens: int
    as_json: bool
    load: Callable[[], Reader]
    note: str = ""

    def ask(self, icae: Reader, memory: Memory, question: str) -> dict[str, Any]:
        """Ask one question; without JSON, print the answer as it comes.

        Args:
            icae: The model.
            memory: What to answer from.
            question: The question.

        Returns:
            The answer as ``--json`` prints it.
        """
        ask_one: Callable[..., Answer] = (
            functools.partial(icae.ask_text, source_text(memory))
            if self.mode == "full-context"
            else functools.partial(icae.ask, memory)
        )
        on_text = None if self.as_json else console.write_text
        asked = f"{self.note}\n\n{question}" if self.note else question
        answer = ask_one(asked, max_new_tokens=self.max_new_tokens, on_text=on_text)
        if not self.as_json:
            console.write_text("\n")
            note_answer(answer, self.mode)
        return answer_payload(question, answer, self.mode)
