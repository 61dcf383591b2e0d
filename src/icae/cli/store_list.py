"""`icae store list` and `icae store show`: what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from icae.cli import console
from icae.cli.options import AsJson, Force
from icae.cli.outcome import Outcome, reported
from icae.cli.output_file import check_output
from icae.cli.store_options import (
    KEY_DIGITS,
    Reference,
    StorePath,
    names_text,
    record_payload,
)

if TYPE_CHECKING:
    from icae.store import StoredMemory

Export = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="PATH", help="Write it to a memory file, too."),
]


@reported
def list_memories(store: StorePath, as_json: AsJson = False) -> Outcome:
    """List the memories of a store."""
    from icae.store import open_store

    with open_store(store) as opened:
        records = opened.records()
    payload = {"store": store, "memories": [record_payload(record) for record in records]}
    return Outcome(payload=payload, show=lambda: _show_list(records))


@reported
def show(
    reference: Reference,
    store: StorePath,
    output: Export = None,
    force: Force = False,
    as_json: AsJson = False,
) -> Outcome:
    """Say what a store knows about one memory; --output takes it out."""
    if output is not None:
        check_output(output, if_exists="replace" if force else "refuse", inputs=[Path(store)])
    from icae.store import open_store

    with open_store(store) as opened:
        record = opened.get(reference)
        if output is not None:
            opened.export(record.key, output)
    written = {} if output is None else {"output": str(output)}
    payload = {"store": store, **record_payload(record), **written}
    return Outcome(payload=payload, show=lambda: _show_one(record))


def _show_list(records: list[StoredMemory]) -> None:
    """Print one line for each memory, then their sum."""
    table = Table("key", box=None, pad_edge=False, header_style="bold")
    for label in ("tokens", "positions", "fidelity", "size"):
        table.add_column(label, justify="right")
    table.add_column("added")
    table.add_column("names")
    for record in records:
        table.add_row(
            record.key[:KEY_DIGITS],
            str(record.tokens),
            str(record.positions),
            console.percent_text(record.fidelity),
            console.size_text(record.bytes),
            record.added_at[:10],
            console.preview(names_text(record.names), width=96),
        )
    out = console.results()
    if records:
        out.print(table, soft_wrap=True)
    size = console.size_text(sum(record.bytes for record in records))
    out.print(f"{len(records)} memories, {size}", soft_wrap=True)


def _show_one(record: StoredMemory) -> None:
    """Print everything about one memory."""
    made_by = record.provenance
    console.print_figures(
        {
            "key": record.key,
            "names": names_text(record.names),
            "documents": str(record.documents),
            "passages": str(record.passages) if record.passages else "none: no text was kept",
            "tokens": str(record.tokens),
            "positions": f"{record.positions} ({record.tokens / record.positions:.2f} tokens each)",
            "fidelity": console.percent_text(record.fidelity),
            "settings": ", ".join(f"{key} {value}" for key, value in record.settings.items()),
            "adapter": f"{made_by.adapter} ({made_by.adapter_hash})",
            "base model": f"{made_by.base_model} ({made_by.base_hash})",
            "size": console.size_text(record.bytes),
            "added": record.added_at,
        }
    )
