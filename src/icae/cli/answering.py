"""What `icae ask` and `icae chat` share: reading memories, printing answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from icae.cli import console
from icae.errors import InputError

if TYPE_CHECKING:
    from icae.config.types import Answer
    from icae.memory import Memory

Mode = Literal["memory", "full-context"]


def load_memories(paths: Sequence[Path]) -> Memory:
    """Read memory files and concatenate them in order.

    Args:
        paths: At least one memory file.

    Raises:
        MemoryFileError: If a file cannot be read.
        IncompatibleMemoryError: If they were made by different models.
    """
    from icae.memory import Memory, merge

    loaded = [Memory.load(path) for path in paths]
    return loaded[0] if len(loaded) == 1 else merge(loaded)


def require_source(memory: Memory, option: str) -> None:
    """Refuse a memory whose text was not kept.

    Args:
        memory: The memory.
        option: The option that needs the text, for example ``--compare``.

    Raises:
        InputError: If a document's text was not kept.
    """
    missing = [document.name for document in memory.documents if document.source is None]
    if missing:
        raise InputError(
            f"{option} needs the text of the documents, and the memory kept none of it."
            if len(missing) == len(memory.documents)
            else f"{option} needs the text of every document.",
            got=f"no source text for {', '.join(missing)}",
            expected="a memory compressed without --no-source",
            fix=f"Leave {option} out, or compress the document again.",
        )


def source_text(memory: Memory) -> str:
    """The kept texts of all documents, a blank line between two."""
    return "\n\n".join(document.source or "" for document in memory.documents)


def answer_payload(question: str, answer: Answer, mode: Mode) -> dict[str, Any]:
    """One answer as ``--json`` prints it.

    Args:
        question: What was asked.
        answer: What came back.
        mode: What the answer was read from.

    Returns:
        A JSON object; ``tokens.prompt`` counts all decoder positions before the answer,
        ``tokens.memory`` those of them that stand for the context.
    """
    return {
        "answer": answer.text,
        "question": question,
        "mode": mode,
        "tokens": {
            "memory": answer.memory_positions,
            "prompt": answer.prompt_tokens,
            "answer": answer.answer_tokens,
        },
        "seconds": round(answer.seconds, 3),
        "first_token_seconds": round(answer.first_token_seconds, 3),
        "finished": answer.finished,
        "runtime": answer.runtime,
    }


def note_answer(answer: Answer, mode: Mode) -> None:
    """Print one line of figures about an answer on standard error."""
    what = "of the memory" if mode == "memory" else "context tokens"
    cut = "" if answer.finished else "; cut at --max-new-tokens"
    console.note(
        f"{answer.prompt_tokens} decoder positions ({answer.memory_positions} {what}), "
        f"{answer.answer_tokens} answer tokens, {answer.seconds:.2f} s "
        f"(first token {answer.first_token_seconds:.2f} s), {answer.runtime}{cut}"
    )
