"""A store of memories as tools of the Model Context Protocol: documents in, answers out."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from icae.engine import Engine
from icae.errors import IcaeError
from icae.store import (
    DEFAULT_BUDGET,
    NewMemory,
    StoredMemory,
    open_store,
    retrieve_readable,
)

P = ParamSpec("P")
R = TypeVar("R")

INSTRUCTIONS = """Documents are kept as compressed memories. Add those that are too long to be read
again and again, then ask about them; answers are short: check them against the sources."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A memory of the store.

    Attributes:
        names: What it is called.
        tokens: Tokens of the text.
        positions: Decoder positions that stand for them.
        fidelity: Share of the tokens that the memory holds (0..1), or null.
    """

    names: list[str]
    tokens: int
    positions: int
    fidelity: float | None

    @classmethod
    def of(cls, stored: StoredMemory) -> Document:
        """What a store knows of a memory."""
        return cls(
            names=list(stored.names),
            tokens=stored.tokens,
            positions=stored.positions,
            fidelity=stored.fidelity,
        )


@dataclass(frozen=True, kw_only=True)
class FromMemory:
    """An answer.

    Attributes:
        answer: Its text.
        sources: Documents that were read, with the characters where passages were.
    """

    answer: str
    sources: list[str]


@dataclass(frozen=True, kw_only=True)
class StoreTools:
    """The tools; one call at a time uses model and store, each in a thread of the SDK."""

    engine: Engine
    store: Path

    def add_document(self, name: str, text: str) -> Document:
        """Compress a text into a memory of that name; one that had the name is replaced."""
        memory = self.engine.compress(text, name=name)
        with open_store(self.store) as store:
            (added,) = store.add([NewMemory(name=name, memory=memory)])
        return Document.of(added.stored)

    def ask(self, question: str, memory: str | None = None) -> FromMemory:
        """Answer a question from the memory of a document, given by its name.

        Without one, the passages of all documents that have the words of the question are read.
        """
        with open_store(self.store) as store:
            if memory is not None:
                asked, sources = store.load(memory), [memory]
            else:
                asked, hits = retrieve_readable(
                    store, question, budget=DEFAULT_BUDGET, readable=self.engine.readable
                )
                sources = [f"{hit.document} [{hit.char_start}:{hit.char_end}]" for hit in hits]
        return FromMemory(answer=self.engine.ask(asked, question).text, sources=sources)

    def list_documents(self) -> list[Document]:
        """The documents that can be asked about."""
        with open_store(self.store) as store:
            return [Document.of(record) for record in store.records() if record.names]


def make_server(engine: Engine, store: Path) -> MCPServer:
    """An MCP server of the file of a store, which must be there; ``run("stdio")`` runs it."""
    server = MCPServer("icae", instructions=INSTRUCTIONS, log_level="WARNING")
    tools, lock = StoreTools(engine=engine, store=store), threading.Lock()
    server.add_tool(_tool(tools.add_document, lock))
    server.add_tool(_tool(tools.ask, lock))
    server.add_tool(_tool(tools.list_documents, lock))
    return server


def _tool(function: Callable[P, R], lock: threading.Lock) -> Callable[P, R]:
    """One call at a time; what a user can mend becomes the error that a client shows."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with lock:
                return function(*args, **kwargs)
        except IcaeError as error:
            told = {"Got": error.got, "Expected": error.expected, "Fix": error.fix}
            parts = [f"{label}: {text.rstrip('.')}." for label, text in told.items() if text]
            raise ToolError(" ".join([error.message, *parts])) from error

    return call
