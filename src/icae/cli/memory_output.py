"""What the commands that write a changed memory share: where it goes, what they print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icae.cli import console
from icae.cli.outcome import Outcome
from icae.cli.span_table import exact_text

if TYPE_CHECKING:
    from icae.memory import Memory, MemoryHeader

NewOutput = Annotated[
    Path, typer.Option("--output", "-o", metavar="PATH", help="Memory file to write.")
]

DocumentIndex = Annotated[
    int,
    typer.Option(
        "--document", metavar="N", help="Which document of the memory, from 0; -1 is the last."
    ),
]


def document_source(memory: Memory, document: int) -> str:
    """The text of a document of a memory.

    Args:
        memory: The memory.
        document: Index of the document, from 0; negative from the end.

    Raises:
        InputError: If there is no such document, or its text was not kept.
    """
    from icae.memory.runs import document_index, source_of

    return source_of(memory.documents[document_index(memory, document)])


def saved(memory: Memory, target: Path, **more: Any) -> Outcome:
    """Write a memory and say what it holds.

    Args:
        memory: The memory.
        target: File to write; one that exists is replaced, completely or not at all.
        more: More values of the ``--json`` object, such as ``seconds``.
    """
    memory.save(target)
    payload = {
        "output": str(target),
        "documents": [document.name for document in memory.documents],
        "tokens": memory.tokens,
        "spans": len(memory.spans),
        "slots": memory.slot_count,
        "verbatim_tokens": memory.verbatim_tokens,
        "positions": memory.positions,
        "ratio": memory.ratio,
        "fidelity": memory.fidelity,
        "file_bytes": target.stat().st_size,
        **more,
    }
    return Outcome(payload=payload, show=lambda: _show(memory, payload))


def _show(memory: Memory, payload: dict[str, Any]) -> None:
    fidelity = memory.fidelity
    figures = {
        "memory": f"{payload['output']} ({console.size_text(payload['file_bytes'])})",
        "documents": ", ".join(console.preview(name) for name in payload["documents"]),
        "tokens": f"{memory.tokens} in {console.count_text(len(memory.spans), 'span')}",
        "positions": positions_text(memory),
        "fidelity": "not measured" if fidelity is None else console.percent_text(fidelity),
    }
    if "refined_spans" in payload:
        figures["exact"] = exact_text(memory.spans) or "not tried"
        done = console.count_text(payload["refined_spans"], "span")
        figures["refined"] = f"{done} in {payload['seconds']:.1f} s"
    if "encoded_spans" in payload:
        done = console.count_text(payload["encoded_spans"], "span")
        figures["encoded"] = f"{done} in {payload['seconds']:.1f} s"
    console.print_figures(figures)


def positions_text(memory: Memory | MemoryHeader) -> str:
    """What a memory takes in the decoder, for people.

    Args:
        memory: A memory or the header of its file.
    """
    verbatim = f" + {memory.verbatim_tokens} verbatim tokens" if memory.verbatim_tokens else ""
    return f"{memory.slot_count} slots{verbatim} ({memory.ratio:.2f} tokens each)"


def encoded_spans(before: Memory, after: Memory) -> int:
    """How many spans of a changed memory were not there before.

    Args:
        before: The memory as it was.
        after: The memory as it is.
    """
    old = {_content(before, i) for i in range(len(before.spans))}
    return sum(_content(after, i) not in old for i in range(len(after.spans)))


def _content(memory: Memory, index: int) -> tuple[object, ...]:
    span = memory.spans[index]
    slots = memory.slots[span.slot_start : span.slot_end].tobytes()
    ids = memory.verbatim_ids[span.verbatim_start : span.verbatim_end].tobytes()
    return memory.span_source(index), slots, ids
