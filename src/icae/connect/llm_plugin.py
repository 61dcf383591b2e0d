"""A plugin of `llm`: the model ``icae`` answers from a memory file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import llm

from icae.errors import InputError

if TYPE_CHECKING:
    from icae.decode.reader import Reader
    from icae.memory import Provenance


@llm.hookimpl
def register_models(register: Callable[[llm.Model], None]) -> None:
    """Tell `llm` of the model."""
    register(MemoryReader())


class MemoryReader(llm.Model):
    """The frozen decoder with an adapter, asked about a memory file."""

    model_id = "icae"
    can_stream = True

    class Options(llm.Options):
        """What is read, and by what.

        Attributes:
            memory: Path of the memory file.
            adapter: Adapter folder or hub id; by default the one in the package that made it.
            base: Base model; by default the adapter's.
            max_new_tokens: Most tokens of the answer.
        """

        memory: str | None = None
        adapter: str | None = None
        base: str | None = None
        max_new_tokens: int = 128

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: llm.Conversation | None,
    ) -> Iterator[str]:
        """Yield the pieces of the answer as they are written."""
        from icae.memory import Memory

        asked = prompt.options
        if asked.memory is None:
            raise InputError(
                "icae answers from a memory file, and none is named.",
                fix="Name it: llm -m icae -o memory report.icae (`icae compress` makes one).",
            )
        memory = Memory.load(asked.memory)
        reader = _opened(asked.adapter, asked.base, memory.provenance)
        before = conversation.responses if conversation else ()
        history = [(_question(turn.prompt), turn.text().strip()) for turn in before]
        pieces: SimpleQueue[str | None] = SimpleQueue()
        with ThreadPoolExecutor(1) as pool:
            answering = pool.submit(
                reader.ask,
                memory,
                _question(prompt),
                history=history,
                max_new_tokens=asked.max_new_tokens,
                on_text=pieces.put,
            )
            answering.add_done_callback(lambda _: pieces.put(None))
            yield from iter(pieces.get, None)
        answer = answering.result()
        response.set_usage(input=answer.prompt_tokens, output=answer.answer_tokens)


def _question(prompt: Any) -> str:
    """A question, behind what `llm` has as the system's words."""
    return "\n\n".join(text for text in (prompt.system, prompt.prompt) if text)


@functools.lru_cache(maxsize=1)
def _opened(adapter: str | None, base: str | None, made_by: Provenance) -> Reader:
    from icae.opening import open_reader

    return open_reader(adapter, base=base, made_by=made_by)
