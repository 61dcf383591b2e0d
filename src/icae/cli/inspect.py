"""`icae inspect`: what a memory file holds, without loading a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.text import Text
from typer import Option

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.memories import (
    MemoryPath,
    check_output,
    load_memories,
    require_source,
    token_places,
    write_output,
)
from icae.cli.memory_tables import (
    marked_spans,
    memory_figures,
    memory_payload,
    print_spans,
    span_payload,
    weakest_spans,
)
from icae.cli.options import Base, Force

if TYPE_CHECKING:
    from icae.memory import Memory, MemoryHeader
    from icae.memory.shading import Stretch

LOST_STYLE = "bold red underline"


@command
def inspect(
    *,
    memory_path: MemoryPath,
    passages: Annotated[int, Option(min=0, metavar="N")] = 0,
    html: Annotated[Path | None, Option(metavar="PATH")] = None,
    base: Base = None,
    force: Force = False,
) -> Outcome:
    """Say what a memory file holds: documents, spans, fidelity, what made it. Loads no model.

    Args:
        passages: Print the N spans of lowest fidelity with lost tokens marked; loads the tokenizer.
        html: Write the text, shaded by fidelity, as a web page; loads the tokenizer.
    """
    from icae.memory import read_header

    if html is not None:
        check_output(html, force=force, inputs=[memory_path])
    header = read_header(memory_path)
    payload = _payload(memory_path, header)
    weakest: list[dict[str, Any]] = []
    if passages or html is not None:
        memory = load_memories(memory_path)
        require_source(memory, "--passages" if html is None else "--html")
        places = token_places(memory, base)
        weakest = _weakest_passages(memory, places, passages)
        if html is not None:
            from icae.memory.fidelity_page import fidelity_page

            write_output(html, fidelity_page(memory, places, title=memory_path.name))
        payload |= {"passages": weakest, "html": None if html is None else str(html)}
    text_of = load_memories(memory_path).span_source if header.has_source else lambda index: None
    return Outcome(payload=payload, show=lambda: _show(memory_path, header, text_of, weakest, html))


DOCUMENT_FIELDS = ("name", "sha256", "chars", "tokens", "token_ids_sha256")


def _payload(path: Path, header: MemoryHeader) -> dict[str, Any]:
    return {
        "file": str(path),
        "file_bytes": header.file_bytes,
        **memory_payload(header),
        "has_source": header.has_source,
        "has_token_fidelity": header.has_token_fidelity,
        "format_version": header.format_version,
        "documents": [{f: getattr(own, f) for f in DOCUMENT_FIELDS} for own in header.documents],
        "spans": [
            {**span_payload(index, span), "document": header.document_of[index]}
            for index, span in enumerate(header.spans)
        ],
        "weakest": marked_spans(header.spans),
        "provenance": asdict(header.provenance),
        "created_by": header.created_by,
    }


def _show(
    path: Path,
    header: MemoryHeader,
    text_of: Callable[[int], str | None],
    passages: Sequence[dict[str, Any]],
    html: Path | None,
) -> None:
    """Print the figures, the documents, the spans, passages and what made them."""
    console.print_figures(
        {
            "file": f"{path} ({console.size_text(header.file_bytes)})",
            **memory_figures(header),
            "source text": "kept" if header.has_source else "not kept",
            "created by": f"{header.created_by} (format version {header.format_version})",
        }
    )
    right = ("tokens", "characters")
    documents = console.table("document", *right, "sha256", right=right)
    for own in header.documents:
        name = console.preview(own.name)
        documents.add_row(name, str(own.tokens), str(own.chars), own.sha256[:12])
    out = console.results()
    out.print()
    out.print(documents)
    print_spans(header.spans, text_of, header.fidelity)
    if passages:
        _print_passages(passages)
    out.print()
    made_by = [(f.name, getattr(header.provenance, f.name)) for f in fields(header.provenance)]
    console.print_figures(
        {name.replace("_", " "): str(value) for name, value in made_by if value is not None}
    )
    if html is not None:
        console.note(f"Written to {html}")


def _weakest_passages(
    memory: Memory, places: Sequence[Sequence[int] | None], count: int
) -> list[dict[str, Any]]:
    """The spans that are held worst, with what is lost in them, as ``--json`` prints them.

    ``lost`` are the character ranges of lost tokens within the text, or null where single
    tokens are not known.
    """
    from icae.memory.shading import shaded_spans

    chosen = [i for i in weakest_spans(memory.spans, count) if memory.spans[i].kind != "tokens"]
    shaded: dict[int, list[Stretch]] = {}
    for document in {memory.document_of[i] for i in chosen}:
        shaded.update(shaded_spans(memory, document, places[document]))
    passages = []
    for index in chosen:
        span, document = memory.spans[index], memory.document_of[index]
        known = span.token_fidelity is not None and places[document] is not None
        start = span.char_start
        lost = [[s.start - start, s.end - start] for s in shaded[index] if s.lost]
        passages.append(
            {
                "span": index,
                "document": document,
                "fidelity": span.fidelity,
                "text": memory.span_source(index),
                "lost": lost if known else None,
            }
        )
    return passages


def _print_passages(passages: Sequence[dict[str, Any]]) -> None:
    """Print passages; lost tokens are red, or stand between ⟦ and ⟧ without colours."""
    out = console.results()
    out.print()
    out.print("Passages of lowest fidelity; lost tokens are marked:")
    for passage in passages:
        share = console.percent_text(passage["fidelity"])
        out.print()
        out.print(Text(f"span {passage['span']} ({share})", style="dim"))
        lost = passage["lost"] or []
        out.print(marked_text(passage["text"] or "", lost, colour=out.is_terminal))


def marked_text(text: str, lost: Sequence[Sequence[int]], *, colour: bool) -> Text:
    """A text with ranges ``[start, end]``, in order, marked; neighbours are marked as one."""
    joined: list[list[int]] = []
    for start, end in lost:
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    before, after = ("", "") if colour else ("⟦", "⟧")
    marked, at = Text(), 0
    for start, end in joined:
        marked.append(console.printable(text[at:start]))
        marked.append(before + console.printable(text[start:end]) + after, style=LOST_STYLE)
        at = end
    marked.append(console.printable(text[at:]))
    return marked
