"""`icae ask`: questions about one or more memories, or about a store of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from icae.cli import console, engine
from icae.cli.answering import Mode, load_memories, require_source
from icae.cli.ask_store import Answerer, Budget, Store, ask_store
from icae.cli.asking import Asking
from icae.cli.kv import keeping, require_one_file, use_kv
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype, KeepKv, MaxNewTokens, Runtime
from icae.cli.outcome import Outcome, reported
from icae.cli.token_places import token_places
from icae.cli.vllm_options import EngineModel, EngineUrl, engine_address
from icae.errors import InputError, MemoryFileError

Questions = Annotated[
    str | None,
    typer.Option(
        "--questions",
        metavar="FILE",
        help="Ask every line of a file that is not blank; - reads standard input.",
    ),
]

FullContext = Annotated[
    bool, typer.Option("--full-context", help="Answer from the kept text, not from the memory.")
]

Note = Annotated[
    bool,
    typer.Option(
        "--note",
        help="Put the numbers, names and code that the slots lose into the prompt, before the "
        "question.",
    ),
]


@reported
def ask(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MEMORY...] QUESTION",
            help="Memory files (.icae), then the question; memories only with --questions. "
            "No memories with --store.",
            show_default=False,
        ),
    ] = None,
    questions: Questions = None,
    store: Store = None,
    budget: Budget = 512,
    full_context: FullContext = False,
    note: Note = False,
    max_new_tokens: MaxNewTokens = 128,
    runtime: Runtime = "auto",
    engine_url: EngineUrl = None,
    engine_model: EngineModel = None,
    kv: KeepKv = False,
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> Outcome:
    """Ask about one or more memories; the answer streams to standard output.

    With --store, every question is answered from the passages of the store that match it
    best, and these are cited.
    """
    server = engine_address(engine_url, engine_model)
    mode: Mode = "full-context" if full_context else "memory"
    asking = Asking(
        mode=mode,
        max_new_tokens=max_new_tokens,
        as_json=as_json,
        load=lambda: engine.open_reader(
            runtime=runtime,
            adapter=adapter,
            base=base,
            device=device,
            dtype=dtype,
            server=server,
        ),
    )
    if note and (full_context or store is not None):
        raise typer.BadParameter(
            "a note is of memory files; leave --full-context and --store out.", param_hint="--note"
        )
    memories, asked = _split(arguments or [], questions, store)
    if kv:
        require_one_file(memories, mode)

    def answered(answer: Answerer) -> dict[str, Any]:
        if questions is None:
            return answer(asked[0])
        about = {"store": store} if store else {"memories": [str(path) for path in memories]}
        return _answer_all(answer, asked, as_json=as_json) | {"mode": mode, **about}

    if store is not None:
        return Outcome(payload=ask_store(store, asking, budget=budget, answered=answered))
    memory = load_memories(memories)
    if mode == "full-context":
        require_source(memory, "--full-context")
    if note:
        from icae.memory.risk_note import risk_note

        asking = replace(asking, note=risk_note(memory, token_places(memory, base)))
    with console.status("Loading the model"):
        icae = asking.load()
    if mode == "memory" and len(memories) == 1:
        use_kv(icae, memory, memories[0], keep=keeping(kv))
    return Outcome(payload=answered(lambda question: asking.ask(icae, memory, question)))


def _answer_all(answer: Answerer, questions: Sequence[str], *, as_json: bool) -> dict[str, Any]:
    """Answer several questions in order, each on its own."""
    start = time.perf_counter()
    answers = []
    for number, question in enumerate(questions):
        if not as_json:
            console.write_text(("\n" if number else "") + f"Q: {question}\nA: ")
        answers.append(answer(question))
    return {"answers": answers, "seconds": round(time.perf_counter() - start, 3)}


def _split(
    arguments: Sequence[str], questions: str | None, store: str | None
) -> tuple[list[Path], list[str]]:
    """Tell the memory files from the questions."""
    if not arguments and (questions is None or store is None):
        raise typer.BadParameter(
            "a question is missing." if questions is None else "a memory file is missing.",
            param_hint="QUESTION" if questions is None else "MEMORY",
        )
    if store is not None and len(arguments) > (questions is None):
        raise typer.BadParameter(
            "a store takes the place of memory files; give one question, or --questions.",
            param_hint="--store",
        )
    if questions is not None:
        return [Path(argument) for argument in arguments], read_questions(questions)
    *memories, question = arguments
    if store is not None:
        _check_unicode(question)
        return [], [question]
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
