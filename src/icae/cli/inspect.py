"""`icae inspect`: what a memory file holds, without loading a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from icae.cli import console
from icae.cli.answering import load_memories, require_source
from icae.cli.memory_output import positions_text
from icae.cli.options import AsJson, Base, Force, MemoryPath
from icae.cli.outcome import Outcome, reported
from icae.cli.output_file import check_output
from icae.cli.passages import print_passages, weakest_passages
from icae.cli.span_table import exact_text, marked_spans, print_spans, span_payload
from icae.cli.token_places import token_places
from icae.errors import InputError

if TYPE_CHECKING:
    from icae.memory import Memory, MemoryHeader


@reported
def inspect(
    memory_path: MemoryPath,
    passages: Annotated[
        int,
        typer.Option(
            "--passages",
            min=0,
            metavar="N",
            help="Print the N weakest spans with lost tokens marked; loads the tokenizer.",
        ),
    ] = 0,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="PATH",
            help="Write the text, shaded by fidelity, as a web page; loads the tokenizer.",
        ),
    ] = None,
    base: Base = None,
    force: Force = False,
    as_json: AsJson = False,
) -> Outcome:
    """Say what a memory file holds: documents, spans, fidelity, what made it. Loads no model."""
    from icae.memory import read_header

    if html is not None:
        check_output(html, if_exists="replace" if force else "refuse", inputs=[memory_path])
    header = read_header(memory_path)
    payload = _payload(memory_path, header)
    weakest: list[dict[str, Any]] = []
    if passages or html is not None:
        memory = load_memories([memory_path])
        require_source(memory, "--passages" if html is None else "--html")
        places = token_places(memory, base)
        weakest = weakest_passages(memory, places, passages)
        if html is not None:
            _write_page(html, memory, places, title=memory_path.name)
        payload |= {"passages": weakest, "html": None if html is None else str(html)}
    text_of = _source_reader(memory_path, header)
    return Outcome(payload=payload, show=lambda: _show(memory_path, header, text_of, weakest, html))


def _write_page(
    path: Path, memory: Memory, places: Sequence[Sequence[int] | None], *, title: str
) -> None:
    from icae.memory.fidelity_html import fidelity_page

    try:
        path.write_text(fidelity_page(memory, places, title=title), encoding="utf-8")
    except OSError as error:
        raise InputError("The page cannot be written.", got=f"{path}: {error.strerror}") from error


def _source_reader(path: Path, header: MemoryHeader) -> Callable[[int], str | None]:
    """How to get the text of a span, where the file keeps it."""
    if not header.has_source:
        return lambda index: None
    from icae.memory import Memory

    return Memory.load(path).span_source


def _payload(path: Path, header: MemoryHeader) -> dict[str, Any]:
    documents = [asdict(document) for document in header.documents]
    for document in documents:
        del document["source"]
    return {
        "file": str(path),
        "file_bytes": header.file_bytes,
        "tokens": header.tokens,
        "slots": header.slot_count,
        "verbatim_tokens": header.verbatim_tokens,
        "positions": header.positions,
        "ratio": header.ratio,
        "fidelity": header.fidelity,
        "has_source": header.has_source,
        "has_token_fidelity": header.has_token_fidelity,
        "format_version": header.format_version,
        "documents": documents,
        "spans": [
            {**span_payload(index, span), "document": span.document}
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
    fidelity = header.fidelity
    console.print_figures(
        {
            "file": f"{path} ({console.size_text(header.file_bytes)})",
            "tokens": f"{header.tokens} in {console.count_text(len(header.spans), 'span')}",
            "positions": positions_text(header),
            "fidelity": "not measured" if fidelity is None else console.percent_text(fidelity),
            "exact": exact_text(header.spans) or "not tried",
            "source text": "kept" if header.has_source else "not kept",
            "created by": f"{header.created_by} (format version {header.format_version})",
        }
    )
    out = console.results()
    out.print()
    out.print(_document_table(header))
    print_spans(header.spans, text_of, fidelity)
    if passages:
        print_passages(passages)
    out.print()
    provenance = asdict(header.provenance)
    console.print_figures(
        {name.replace("_", " "): str(value) for name, value in provenance.items()}
    )
    if html is not None:
        console.note(f"Written to {html}")


def _document_table(header: MemoryHeader) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("document", overflow="fold")
    for heading in ("tokens", "characters"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("sha256", no_wrap=True)
    for document in header.documents:
        table.add_row(
            console.preview(document.name),
            str(document.tokens),
            str(document.chars),
            document.sha256[:12],
        )
    return table
