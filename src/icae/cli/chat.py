"""`icae chat`: a conversation about one or more memories."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from icae.cli import console
from icae.cli.answers import answered, require_one_file, use_kv
from icae.cli.command import AsJson, Outcome, command
from icae.cli.memories import MemoryPaths, load_memories
from icae.cli.options import DecoderOptions, KeepKv, MaxNewTokens
from icae.errors import IcaeError, InputError

if TYPE_CHECKING:
    from icae.decode.conversation import Conversation

PROMPT = "> "


@dataclass(kw_only=True)
class Dialogue:
    """A conversation, and how it is shown.

    Attributes:
        conversation: The conversation.
        max_new_tokens: Longest answer in tokens.
        as_json: Whether answers are collected instead of printed.
        turns: Every turn since the start as ``--json`` prints it.
    """

    conversation: Conversation
    max_new_tokens: int
    as_json: bool
    turns: list[dict[str, Any]] = field(default_factory=list)

    def do(self, line: str) -> None:
        """Do what one line says: a command, or a question."""
        if line == "/context":
            console.note(self.context_line())
        elif line == "/reset":
            self.conversation.forget()
            console.note("The turns are forgotten.")
        elif line.startswith("/") and line[1:].isalpha():
            console.note(f"There is no {line}; /context, /reset and /quit are.")
        else:
            try:
                self.turns.append(self._answer(line))
            except IcaeError as error:
                if not sys.stdin.isatty():
                    raise
                console.report_error(error)

    def _answer(self, question: str) -> dict[str, Any]:
        """Ask a question that builds on the turns before, and print the answer."""
        if self.conversation.leaving:
            with console.status("Compressing old turns"):
                self.conversation.compact(question)
        return answered(
            question,
            lambda on_text: self.conversation.ask(
                question, max_new_tokens=self.max_new_tokens, on_text=on_text
            ),
            mode="memory",
            as_json=self.as_json,
        )

    def context_line(self) -> str:
        """What the conversation stands on, in one line."""
        memory, reader = self.conversation.memory, self.conversation.reader
        assert memory is not None  # `chat` is about documents
        full = reader.kv_bytes(memory.tokens)
        held = reader.kv_bytes(memory.positions)
        documents = ", ".join(console.preview(d.name, width=32) for d in memory.documents)
        return (
            f"{documents}: {memory.tokens} tokens in {memory.positions} positions "
            f"({memory.ratio:.2f}x), KV cache {console.size_text(held)} instead of "
            f"{console.size_text(full)}; turns kept word for word: "
            f"{len(self.conversation.history)}"
        )


@command
def chat(
    *,
    memories: MemoryPaths,
    keep_turns: Annotated[int, Option(min=0, metavar="N")] = 4,
    older_positions: Annotated[int, Option(min=1, metavar="N")] = 512,
    max_new_tokens: MaxNewTokens = 128,
    kv: KeepKv = False,
    decoder: DecoderOptions,
    as_json: AsJson = False,
) -> Outcome:
    """Talk about one or more memories, a line a turn. /context /reset /quit; end of input ends.

    Args:
        keep_turns: Turns kept word for word; older ones are compressed.
        older_positions: Most decoder positions of older turns; the oldest are compressed further.
    """
    from icae.decode.conversation import Conversation

    if kv:
        require_one_file(memories, "memory")
    memory = load_memories(*memories)
    icae = decoder.open(memory.provenance)
    if len(memories) == 1:
        use_kv(icae, memory, memories[0], keep="always" if kv else "renew")
    conversation = Conversation(
        reader=icae, documents=memory, keep_turns=keep_turns, older_positions=older_positions
    )
    dialogue = Dialogue(conversation=conversation, max_new_tokens=max_new_tokens, as_json=as_json)
    if sys.stdin.isatty():
        console.note(dialogue.context_line())
        console.note("/context shows this line, /reset forgets the turns, /quit ends.")
    for line in _lines():
        if line == "/quit":
            break
        dialogue.do(line)
    older = conversation.older
    return Outcome(
        payload={
            "turns": dialogue.turns,
            "memories": [str(path) for path in memories],
            "tokens": memory.tokens,
            "slots": memory.slot_count,
            "positions": memory.positions,
            "turns_kept": len(conversation.history),
            "turns_compressed_tokens": 0 if older is None else older.tokens,
        }
    )


def _lines() -> Iterator[str]:
    """Lines that are not blank, with a prompt if somebody types them."""
    source = _typed_lines() if sys.stdin.isatty() else iter(sys.stdin)
    try:
        yield from (line.strip() for line in source if line.strip())
    except UnicodeDecodeError as error:
        raise InputError(
            "Standard input cannot be read.", got=str(error), expected="text in UTF-8"
        ) from error


def _typed_lines() -> Iterator[str]:
    """Lines from a terminal until end of input; the prompt stays out of piped results."""
    with suppress(ImportError):
        import readline  # noqa: F401  (line editing for input)
    while True:
        try:
            if sys.stdout.isatty():
                yield input(PROMPT)
            else:
                print(PROMPT, end="", file=sys.stderr, flush=True)
                yield input()
        except EOFError:
            print(file=sys.stderr)
            return
