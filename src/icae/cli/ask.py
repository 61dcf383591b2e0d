"""`icae ask`: questions about one or more memories, or about a store of them."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from icae.cli import console
from icae.cli.answers import Mode, Writer, answered, require_one_file, use_kv
from icae.cli.command import AsJson, Outcome, command
from icae.cli.memories import load_memories, require_source, token_places
from icae.cli.options import DecoderOptions, KeepKv, MaxNewTokens
from icae.errors import IncompatibleMemoryError, InputError, MemoryFileError

if TYPE_CHECKING:
    from icae.config.types import Answer
    from icae.decode.reader import Reader
    from icae.memory import Memory
    from icae.store import MemoryStore

Answerer = Callable[[str], dict[str, Any]]
"""Answers a question, prints the answer unless JSON is wanted, and returns its payload."""


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """How questions are asked.

    Attributes:
        questions: Ask every line of a file that is not blank; - reads standard input.
        store: Answer from the passages of a store that match the question best.
        budget: With --store: most decoder positions that the passages may take.
        full_context: Answer from the kept text, not from the memory.
        note: Put the numbers, names and code that the slots lose into the prompt, before the
            question.
    """

    questions: Annotated[str | None, Option(metavar="FILE")] = None
    store: Annotated[str | None, Option("--store", "-s", metavar="PATH", show_default=False)] = None
    budget: Annotated[int | None, Option(min=1, metavar="N", show_default="512")] = None
    full_context: bool = False
    note: bool = False
    max_new_tokens: MaxNewTokens = 128
    kv: KeepKv = False
    as_json: AsJson = False

    def __post_init__(self) -> None:
        if self.budget is not None and self.store is None:
            raise BadParameter("it is what passages of a --store may take.", param_hint="--budget")
        if self.note and (self.full_context or self.store is not None):
            raise BadParameter(
                "a note is of memory files; leave --full-context and --store out.",
                param_hint="--note",
            )

    @property
    def mode(self) -> Mode:
        """What the answers are read from."""
        return "full-context" if self.full_context else "memory"

    def ask(self, icae: Reader, memory: Memory, question: str, note: str = "") -> dict[str, Any]:
        """Ask one question of a memory, or of the kept texts of its documents."""
        prompt = f"{note}\n\n{question}" if note else question

        def ask(on_text: Writer | None) -> Answer:
            if self.mode == "memory":
                return icae.ask(memory, prompt, max_new_tokens=self.max_new_tokens, on_text=on_text)
            text = "\n\n".join(document.source or "" for document in memory.documents)
            return icae.ask_text(text, prompt, max_new_tokens=self.max_new_tokens, on_text=on_text)

        told = answered(question, ask, mode=self.mode, as_json=self.as_json)
        if self.mode == "memory" and not told["answer"].strip():
            console.note(f"The answer is empty. {self._ways_out(memory)}")
        return told

    def _ways_out(self, memory: Memory) -> str:
        """What holds more than the memory that gave an empty answer."""
        kept = all(document.source is not None for document in memory.documents)
        ways = [
            "--full-context reads the text itself" if kept else None,
            "compressing it again with --min-fidelity holds more of it",
            None if self.store else "icae store add, then ask --store, reads its best passages",
        ]
        return "; ".join(way for way in ways if way) + "."


@command
def ask(
    *,
    arguments: Annotated[
        list[str] | None, Argument(metavar="[MEMORY...] QUESTION", show_default=False)
    ] = None,
    how: AskOptions,
    decoder: DecoderOptions,
) -> Outcome:
    """Ask about one or more memories; the answer streams to standard output.

    With --store, every question is answered from the passages of the store that match it
    best, and these are cited.

    Args:
        arguments: Memory files (.icae), then the question; memories only with --questions. No
            memories with --store.
    """
    memories, asked = _split(arguments or [], how.questions, how.store)
    if how.kv:
        require_one_file(memories, how.mode)
    if how.store is not None:
        from icae.store import open_store

        with open_store(how.store) as opened:
            answer = _store_answerer(opened, decoder, how)
            return _answer_all(answer, asked, how, about={"store": how.store})
    memory = load_memories(*memories)
    note = ""
    if how.full_context:
        require_source(memory, "--full-context")
    if how.note:
        from icae.memory.risk_note import risk_note

        note = risk_note(memory, token_places(memory, decoder.base))
    icae = decoder.open(memory.provenance)
    if how.mode == "memory" and len(memories) == 1:
        use_kv(icae, memory, memories[0], keep="always" if how.kv else "renew")
    about = {"memories": [str(path) for path in memories]}
    return _answer_all(lambda question: how.ask(icae, memory, question, note), asked, how, about)


def _answer_all(
    answer: Answerer, asked: Sequence[str], how: AskOptions, about: dict[str, Any]
) -> Outcome:
    """Answer the question, or those of a file in order, each on its own."""
    if how.questions is None:
        return Outcome(payload=answer(asked[0]))
    start = time.perf_counter()
    answers = []
    for number, question in enumerate(asked):
        if not how.as_json:
            console.write_text(("\n" if number else "") + f"Q: {question}\nA: ")
        answers.append(answer(question))
    seconds = round(time.perf_counter() - start, 3)
    return Outcome(payload={"answers": answers, "seconds": seconds, "mode": how.mode, **about})


CITATION_FIELDS = ("document", "char_start", "char_end", "positions", "score", "snippet", "key")


def _store_answerer(store: MemoryStore, decoder: DecoderOptions, how: AskOptions) -> Answerer:
    """Answers from the passages of a store, and cites them."""
    from icae.store import DEFAULT_BUDGET, retrieve_readable

    opened = functools.cache(lambda adapter: replace(decoder, adapter=adapter).open())

    def answer(question: str) -> dict[str, Any]:
        icae = opened(decoder.adapter or _adapter_for(store, question))
        budget = how.budget or DEFAULT_BUDGET
        found = retrieve_readable(store, question, budget=budget, readable=icae.readable)
        payload = how.ask(icae, found.memory, question)
        for one in () if how.as_json else found.citations:
            text = console.preview(one.snippet, width=72)
            place = f"{one.document} [{one.char_start}:{one.char_end}]"
            console.note(console.printable(f"{place}  {text}"))
        sources = [
            {name: getattr(one, name) for name in CITATION_FIELDS} for one in found.citations
        ]
        return {**payload, "sources": sources}

    return answer


def _adapter_for(store: MemoryStore, question: str) -> str:
    """The adapter in the package that made the best passage which one of these made."""
    from icae.model.adapter_files import adapter_folder
    from icae.store.retrieval import MOST_HITS

    hits = store.search(question, limit=MOST_HITS)
    for made_by in dict.fromkeys(store.get(hit.key).provenance for hit in hits):
        with suppress(IncompatibleMemoryError):
            return str(adapter_folder(None, made_by))
    return str(adapter_folder(None))


def _split(
    arguments: Sequence[str], questions: str | None, store: str | None
) -> tuple[list[Path], list[str]]:
    """Tell the memory files from the questions."""
    if not arguments and (questions is None or store is None):
        raise BadParameter(
            "a question is missing." if questions is None else "a memory file is missing.",
            param_hint="QUESTION" if questions is None else "MEMORY",
        )
    if store is not None and len(arguments) > (questions is None):
        raise BadParameter(
            "a store takes the place of memory files; give one question, or --questions.",
            param_hint="--store",
        )
    if questions is not None:
        return [Path(argument) for argument in arguments], _read_questions(questions)
    *memories, question = arguments
    if store is None and _is_memory_file(question):
        raise BadParameter(
            f"{question} is a memory file, and no question follows it. "
            f'Put the question last: icae ask {" ".join(arguments)} "..."',
            param_hint="QUESTION",
        )
    if store is None and not memories:
        raise BadParameter(
            f"{question!r} is taken as the question, and no memory file comes before it.",
            param_hint="MEMORY",
        )
    try:
        question.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            "The question is not valid text.", got=error.reason, expected="text in UTF-8"
        ) from error
    return [Path(memory) for memory in memories], [question]


def _is_memory_file(argument: str) -> bool:
    """Whether an argument names a memory file rather than asks something."""
    if argument.endswith(".icae") and not any(c.isspace() for c in argument):
        return True
    from icae.memory import read_header

    # A name may be too long, or of another file.
    with suppress(OSError, ValueError, MemoryFileError):
        return Path(argument).is_file() and bool(read_header(argument))
    return False


def _read_questions(path: str) -> list[str]:
    """One question a line of a file or standard input; blank lines are skipped."""
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
