"""`icae append`: more text at the end of a document of a memory."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from icae.cli import console, engine
from icae.cli.answering import load_memories
from icae.cli.memory_output import (
    ChangedOutput,
    DocumentIndex,
    changed_target,
    document_source,
    encoded_spans,
    saved,
)
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype, Force, MemoryPath, NearRatio
from icae.cli.outcome import Outcome, reported


@reported
def append(
    memory_path: MemoryPath,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Text to append; - reads standard input.")
    ],
    document: DocumentIndex = -1,
    output: ChangedOutput = None,
    ratio: NearRatio = None,
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    force: Force = False,
    as_json: AsJson = False,
) -> Outcome:
    """Append text to a document of a memory, on a new line; only new spans are encoded."""
    target = changed_target(memory_path, output, force=force)
    memory = load_memories([memory_path])
    source = document_source(memory, document)
    from icae.data.documents import read_document

    text = read_document(file).text
    joint = "" if source[-1:].isspace() or text[:1].isspace() else "\n"
    with console.status("Loading the model"):
        icae = engine.open_engine(adapter=adapter, base=base, device=device, dtype=dtype)
    start = time.perf_counter()
    longer = icae.append(memory, joint + text, document=document, ratio=ratio)
    return saved(
        longer,
        target,
        encoded_spans=encoded_spans(memory, longer),
        seconds=round(time.perf_counter() - start, 3),
    )
