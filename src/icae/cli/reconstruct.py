"""`icae reconstruct`: write a memory back out as text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from icae.cli import console, engine
from icae.cli.answering import load_memories, require_source
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype, Force, MemoryPath, Runtime
from icae.cli.outcome import Outcome, reported
from icae.cli.output_file import check_output
from icae.cli.vllm_options import EngineModel, EngineUrl, engine_address
from icae.errors import InputError

if TYPE_CHECKING:
    from icae.config.types import Reconstruction


@reported
def reconstruct(
    memory_path: MemoryPath,
    span: Annotated[
        list[int] | None,
        typer.Option("--span", min=0, metavar="I", help="Only this span, from 0; repeatable."),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Show the original beside it, span by span."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="File to write the text to."),
    ] = None,
    runtime: Runtime = "auto",
    engine_url: EngineUrl = None,
    engine_model: EngineModel = None,
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Force = False,
    as_json: AsJson = False,
) -> Outcome:
    """Write a memory back out as text from its slots alone. Verbatim spans come as they stand."""
    server = engine_address(engine_url, engine_model)
    if output is not None:
        check_output(output, if_exists="replace" if force else "refuse", inputs=[memory_path])
    memory = load_memories([memory_path])
    wanted = sorted(set(span)) if span else None
    for index in wanted or ():
        memory.span_source(index)  # raises if there is no such span
    if compare:
        require_source(memory, "--compare")
    with console.status("Loading the model"):
        icae = engine.open_reader(
            runtime=runtime,
            adapter=adapter,
            base=base,
            device=device,
            dtype=dtype,
            server=server,
        )
    start = time.perf_counter()
    with console.progress("Reconstructing spans") as on_progress:
        spans = icae.reconstruct(memory, spans=wanted, on_progress=on_progress)
    text = icae.joined_text(memory, spans)
    if output is not None:
        _write(output, text)
    payload = _payload(spans, text, output, time.perf_counter() - start)
    payload["runtime"] = icae.decoder.name
    return Outcome(payload=payload, show=lambda: _show(spans, text, output, compare=compare))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace", newline="")
    except OSError as error:
        raise InputError("The text cannot be written.", got=f"{path}: {error.strerror}") from error


def _payload(
    spans: Sequence[Reconstruction], text: str, output: Path | None, seconds: float
) -> dict[str, Any]:
    return {
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
        "exact_prefix": _mean_prefix(spans),
        "output": None if output is None else str(output),
        "seconds": round(seconds, 3),
    }


def _mean_prefix(spans: Sequence[Reconstruction]) -> float | None:
    """Mean share of exact leading tokens, or None if a span was not compared."""
    shares = [item.exact_prefix for item in spans if item.exact_prefix is not None]
    return sum(shares) / len(spans) if spans and len(shares) == len(spans) else None


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
