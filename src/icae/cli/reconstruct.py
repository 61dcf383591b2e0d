"""`icae reconstruct`: a memory written back out as text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from rich.text import Text
from typer import Option

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.memories import (
    MemoryPath,
    check_output,
    load_memories,
    require_source,
    write_output,
)
from icae.cli.options import DecoderOptions, Force

if TYPE_CHECKING:
    from icae.config.types import Reconstruction


@command
def reconstruct(
    *,
    memory_path: MemoryPath,
    span: Annotated[list[int] | None, Option(min=0, metavar="I")] = None,
    compare: bool = False,
    output: Annotated[Path | None, Option("--output", "-o", metavar="PATH")] = None,
    decoder: DecoderOptions,
    force: Force = False,
) -> Outcome:
    """Write a memory back out as text from its slots alone. Verbatim spans come as they stand.

    Args:
        span: Only this span, from 0; repeatable.
        compare: Show the original beside it, span by span.
        output: File to write the text to.
    """
    if output is not None:
        check_output(output, force=force, inputs=[memory_path])
    memory = load_memories(memory_path)
    wanted = sorted(set(span)) if span else None
    for index in wanted or ():
        memory.span_source(index)  # raises if there is no such span
    if compare:
        require_source(memory, "--compare")
    icae = decoder.open(memory.provenance)
    start = time.perf_counter()
    with console.progress("Reconstructing spans") as on_progress:
        spans = icae.reconstruct(memory, spans=wanted, on_progress=on_progress)
    text = icae.joined_text(memory, spans)
    if output is not None:
        write_output(output, text)
    shares = [item.exact_prefix for item in spans if item.exact_prefix is not None]
    payload = {
        "text": text,
        "spans": [
            {
                "span": item.span,
                "text": item.text,
                "original": item.original,
                "tokens": len(item.token_ids),
                "exact_prefix": item.exact_prefix,
            }
            for item in spans
        ],
        "exact_prefix": sum(shares) / len(spans) if spans and len(shares) == len(spans) else None,
        "output": None if output is None else str(output),
        "seconds": round(time.perf_counter() - start, 3),
        "runtime": icae.decoder.name,
    }
    return Outcome(payload=payload, show=lambda: _show(spans, text, output, compare=compare))


def _show(
    spans: Sequence[Reconstruction], text: str, output: Path | None, *, compare: bool
) -> None:
    """Print the comparison, or the text unless it went to a file."""
    if compare:
        table = Table(show_lines=True)
        table.add_column("span", justify="right", no_wrap=True)
        table.add_column("original", ratio=1)
        table.add_column("reconstruction", ratio=1)
        table.add_column("exact prefix", justify="right", no_wrap=True)
        for item in spans:
            table.add_row(
                str(item.span),
                Text(console.printable(item.original or "")),
                Text(console.printable(item.text)),
                console.percent_text(item.exact_prefix),
            )
        console.results().print(table)
    elif output is None:
        console.write_text(text if text.endswith("\n") else text + "\n")
    if output is not None:
        console.note(f"Written to {output}")
