"""`icae inspect`: what a memory file holds, without loading a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from icae.cli import console
from icae.cli.options import AsJson, MemoryPath
from icae.cli.outcome import Outcome, reported
from icae.cli.span_table import marked_spans, print_spans, span_payload

if TYPE_CHECKING:
    from icae.memory import MemoryHeader


@reported
def inspect(memory_path: MemoryPath, as_json: AsJson = False) -> Outcome:
    """Say what a memory file holds: documents, spans, fidelity, what made it. Loads no model."""
    from icae.memory import read_header

    header = read_header(memory_path)
    text_of = _source_reader(memory_path, header)
    return Outcome(
        payload=_payload(memory_path, header),
        show=lambda: _show(memory_path, header, text_of),
    )


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
        "ratio": header.ratio,
        "fidelity": header.fidelity,
        "has_source": header.has_source,
        "documents": documents,
        "spans": [
            {**span_payload(index, span), "document": span.document}
            for index, span in enumerate(header.spans)
        ],
        "weakest": marked_spans(header.spans),
        "provenance": asdict(header.provenance),
        "created_by": header.created_by,
    }


def _show(path: Path, header: MemoryHeader, text_of: Callable[[int], str | None]) -> None:
    """Print the figures, the documents, the spans and what made them."""
    fidelity = header.fidelity
    console.print_figures(
        {
            "file": f"{path} ({console.size_text(header.file_bytes)})",
            "tokens": f"{header.tokens} in {len(header.spans)} spans",
            "slots": f"{header.slot_count} ({header.ratio:.2f} tokens each)",
            "fidelity": "not measured" if fidelity is None else console.percent_text(fidelity),
            "source text": "kept" if header.has_source else "not kept",
            "created by": header.created_by,
        }
    )
    out = console.results()
    out.print()
    out.print(_document_table(header))
    print_spans(header.spans, text_of, fidelity)
    out.print()
    provenance = asdict(header.provenance)
    console.print_figures(
        {name.replace("_", " "): str(value) for name, value in provenance.items()}
    )


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
