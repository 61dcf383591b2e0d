"""A conversation about a memory that keeps itself short: old turns become memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from icae.config.types import Answer
from icae.decode.reader import Reader, Turn
from icae.memory import Memory


@dataclass(kw_only=True)
class Conversation:
    """A conversation under way.

    The last turns are read word for word; older ones are compressed into a memory of
    their own, which grows behind that of the documents.

    Attributes:
        reader: What answers.
        documents: What is talked about, or None.
        keep_turns: Most turns that are read word for word.
        older_positions: Most decoder positions of older turns: the oldest are held ever more
            coarsely.
        history: Turns that the next question builds on word for word,
            ``(question, answer)``.
        older: The turns before them, compressed, or None.
    """

    reader: Reader
    documents: Memory | None = None
    keep_turns: int = 4
    older_positions: int = 512
    history: list[Turn] = field(default_factory=list)
    older: Memory | None = None

    @property
    def memory(self) -> Memory | None:
        """What the next question is asked: the documents, then the older turns."""
        return self.documents if self.older is None else self.behind_documents(self.older)

    def behind_documents(self, older: Memory) -> Memory:
        """The documents, then such a memory of older turns."""
        return older if self.documents is None else self.documents + older

    @property
    def leaving(self) -> int:
        """How many turns become memory before the next question."""
        return max(0, len(self.history) - self.keep_turns)

    def ask(
        self,
        question: str,
        *,
        max_new_tokens: int = 128,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Ask a question that builds on the turns before; see `Reader.ask`."""
        self.compact(question)
        answer = self.reader.ask(
            self.memory,
            question,
            history=tuple(self.history),
            max_new_tokens=max_new_tokens,
            on_text=on_text,
        )
        self.history.append((question, answer.text))
        return answer

    def compact(self, question: str) -> None:
        """Move turns that are not kept word for word into the memory of older ones.

        Args:
            question: What is asked next.
        """
        if count := self.leaving:
            self.older = self.reader.fold(self, question)
            del self.history[:count]

    def forget(self) -> None:
        """Forget all turns; the documents stay."""
        self.history.clear()
        self.older = None


def turns_of(said: Sequence[tuple[str, str]]) -> tuple[str, list[Turn]]:
    """The question that is to be answered, and the turns before it.

    What several messages say before an answer is one question, apart by blank lines.

    Args:
        said: (role, text) of each message; whatever is not the assistant's asks.
    """
    turns: list[Turn] = []
    asked: list[str] = []
    for role, text in said:
        if role != "assistant":
            asked.append(text)
        elif asked or not turns:
            turns.append((_joined(asked), text))
            asked = []
        else:
            turns[-1] = (turns[-1][0], _joined([turns[-1][1], text]))
    return _joined(asked), turns


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(filter(None, texts))
