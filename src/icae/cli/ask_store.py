"""`icae ask --store`: questions about all that a store holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icae.cli import console
from icae.cli.asking import Asking
from icae.errors import StoreError

if TYPE_CHECKING:
    from icae.memory import Provenance
    from icae.store import Citation, MemoryStore
    from icae.store.retrieval import Retrieved

Answerer = Callable[[str], dict[str, Any]]
"""Answers a question, prints the answer unless JSON is wanted, and returns its payload."""

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        "-s",
        metavar="PATH",
        help="Answer from the passages of a store that match the question best.",
        show_default=False,
    ),
]

Budget = Annotated[
    int,
    typer.Option(
        "--budget",
        min=1,
        metavar="N",
        help="With --store: most decoder positions that the passages may take.",
    ),
]


def ask_store(
    store: str, asking: Asking, *, budget: int, answered: Callable[[Answerer], dict[str, Any]]
) -> dict[str, Any]:
    """Ask about a store.

    Args:
        store: Where it is.
        asking: How to ask.
        budget: Most decoder positions that the passages for one question may take.
        answered: Puts the questions to what it is given.

    Returns:
        What `answered` makes of the answers; each has its ``sources``.

    Raises:
        StoreError: If the store cannot be read, or nothing matches a question.
        InputError: If the budget is too small, or a question has no word.
    """
    from icae.store import open_store

    with open_store(store) as opened:
        with console.status("Loading the model"):
            icae = asking.load()

        def answer(question: str) -> dict[str, Any]:
            found = _retrieve(opened, question, budget=budget, readable=icae.readable)
            payload = asking.ask(icae, found.memory, question)
            if not asking.as_json:
                for citation in found.citations:
                    console.note(_line(citation))
            return {**payload, "sources": [_payload(c) for c in found.citations]}

        return answered(answer)


def _retrieve(
    store: MemoryStore, question: str, *, budget: int, readable: Sequence[Provenance]
) -> Retrieved:
    """Passages of the first provenance that has some; slots of two are never mixed."""
    from icae.store import retrieve

    for made_by in readable[:-1]:
        with suppress(StoreError):
            return retrieve(store, question, budget=budget, made_by=made_by)
    return retrieve(store, question, budget=budget, made_by=readable[-1])


def _line(citation: Citation) -> str:
    """A citation for people: what and where, then some of its text."""
    place = f"{citation.document} [{citation.char_start}:{citation.char_end}]"
    return console.printable(f"{place}  {console.preview(citation.snippet, width=72)}")


def _payload(citation: Citation) -> dict[str, Any]:
    """A citation as ``--json`` prints it."""
    return {
        "document": citation.document,
        "char_start": citation.char_start,
        "char_end": citation.char_end,
        "positions": citation.positions,
        "score": citation.score,
        "snippet": citation.snippet,
        "key": citation.key,
    }
