"""`icae append`: more text at the end of a document of a memory."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from icae.cli.answering import load_memories
from icae.cli.command import Outcome, command
from icae.cli.memory_output import (
    DocumentIndex,
    document_source,
    encoded_spans,
    saved,
)
from icae.cli.options import ChangedMemory, MemoryPath, ModelOptions, NearRatio


@command
def append(
    *,
    memory_path: MemoryPath,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Text to append; - reads standard input.")
    ],
    document: DocumentIndex = -1,
    output: ChangedMemory,
    ratio: NearRatio = None,
    model: ModelOptions,
) -> Outcome:
    """Append text to a document of a memory, on a new line; only new spans are encoded."""
    target = output.target(memory_path)
    memory = load_memories([memory_path])
    source = document_source(memory, document)
    from icae.data.documents import read_document

    text = read_document(file).text
    joint = "" if source[-1:].isspace() or text[:1].isspace() else "\n"
    icae = model.load()
    start = time.perf_counter()
    longer = icae.append(memory, joint + text, document=document, ratio=ratio)
    return saved(
        longer,
        target,
        encoded_spans=encoded_spans(memory, longer),
        seconds=round(time.perf_counter() - start, 3),
    )
