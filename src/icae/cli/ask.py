"""`icae ask`: questions about one or more memories."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icae.cli import console, engine
from icae.cli.answering import (
    Mode,
    answer_payload,
    load_memories,
    note_answer,
    require_source,
    source_text,
)
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype, MaxNewTokens
from icae.cli.outcome import Outcome, reported
from icae.errors import InputError, MemoryFileError

if TYPE_CHECKING:
    from icae.types import Answer

Asker = Callable[..., "Answer"]


Questions = Annotated[
    str | None,
    typer.Option(
        "--questions",
        metavar="FILE",
        help="Ask every line of a file that is not blank; - reads standard input.",
    ),
]

FullContext = Annotated[
    bool, typer.Option("--full-context", help="Answer from the kept text, not from the slots.")
]


@reported
def ask(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MEMORY... QUESTION",
            help="Memory files (.icae), then the question; memories only with --questions.",
        ),
    ],
    questions: Questions = None,
    full_context: FullContext = False,
    max_new_tokens: MaxNewTokens = 128,
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> Outcome:
    """Ask about one or more memories; the answer streams to standard output."""
    memories, asked = _split(arguments, questions)
    memory = load_memories(memories)
    mode: Mode = "full-context" if full_context else "memory"
    if mode == "full-context":
        require_source(memory, "--full-context")
    with console.status("Loading the model"):
        icae = engine.open_engine(adapter=adapter, base=base, device=device, dtype=dtype)
    ask_one = (
        functools.partial(icae.ask_text, source_text(memory), max_new_tokens=max_new_tokens)
        if mode == "full-context"
        else functools.partial(icae.ask, memory, max_new_tokens=max_new_tokens)
    )
    if questions is None:
        return Outcome(payload=_ask(ask_one, asked[0], mode, as_json=as_json))
    start = time.perf_counter()
    answers = _ask_all(ask_one, asked, mode, as_json=as_json)
    return Outcome(
        payload={
            "answers": answers,
            "mode": mode,
            "memories": [str(path) for path in memories],
            "seconds": round(time.perf_counter() - start, 3),
        }
    )


def _ask(ask_one: Asker, question: str, mode: Mode, *, as_json: bool) -> dict[str, Any]:
    """Ask one question; without JSON, print the answer as it comes."""
    answer = ask_one(question, on_text=None if as_json else console.write_text)
    if not as_json:
        console.write_text("\n")
        note_answer(answer, mode)
    return answer_payload(question, answer, mode)


def _ask_all(
    ask_one: Asker, questions: Sequence[str], mode: Mode, *, as_json: bool
) -> list[dict[str, Any]]:
    """Ask several questions in order, each on its own."""
    answers = []
    for number, question in enumerate(questions):
        if not as_json:
            console.write_text(("\n" if number else "") + f"Q: {question}\nA: ")
        answers.append(_ask(ask_one, question, mode, as_json=as_json))
    return answers


def _split(arguments: Sequence[str], questions: str | None) -> tuple[list[Path], list[str]]:
    """Tell the memory files from the questions."""
    if questions is not None:
        return [Path(argument) for argument in arguments], read_questions(questions)
    *memories, question = arguments
    if _is_memory_file(question):
        raise typer.BadParameter(
            f"{question} is a memory file, and no question follows it. "
            f'Put the question last: icae ask {" ".join(arguments)} "..."',
            param_hint="QUESTION",
        )
    if not memories:
        raise typer.BadParameter(
            f"{question!r} is taken as the question, and no memory file comes before it.",
            param_hint="MEMORY",
        )
    _check_unicode(question)
    return [Path(memory) for memory in memories], [question]


def _check_unicode(question: str) -> None:
    """Refuse bytes that the shell passed on and that are no text."""
    try:
        question.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            "The question is not valid text.", got=error.reason, expected="text in UTF-8"
        ) from error


def _is_memory_file(argument: str) -> bool:
    """Whether an argument names a memory file rather than asks something."""
    if argument.endswith(".icae") and not any(c.isspace() for c in argument):
        return True
    from icae.memory import read_header

    try:
        if Path(argument).is_file():
            read_header(argument)
            return True
    except (OSError, ValueError, MemoryFileError):  # too long for a name, or another file
        return False
    return False


def read_questions(path: str) -> list[str]:
    """Read one question a line; blank lines are skipped.

    Args:
        path: A text file in UTF-8, or ``-`` for standard input.

    Raises:
        InputError: If it cannot be read or holds no question.
    """
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "Cannot read the questions.",
            got=f"{path}: {error}",
            expected="a text file in UTF-8, one question a line",
        ) from error
    asked = [line.strip() for line in text.splitlines() if line.strip()]
    if not asked:
        raise InputError(
            "There are no questions.",
            got="standard input" if path == "-" else path,
            expected="one question a line",
        )
    return asked
