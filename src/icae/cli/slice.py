"""`icae slice`: a part of a memory as a memory of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from icae.cli.answering import load_memories
from icae.cli.character_range import parse_range
from icae.cli.memory_output import DocumentIndex, NewOutput, document_source, saved
from icae.cli.options import AsJson, Force, MemoryPath
from icae.cli.outcome import Outcome, reported
from icae.cli.output_file import check_output


@reported
def slice_memory(
    memory_path: MemoryPath,
    characters: Annotated[
        str, typer.Argument(metavar="A:B", help="Characters A to B (exclusive) of the document.")
    ],
    output: NewOutput,
    document: DocumentIndex = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> Outcome:
    """Cut out the spans that hold some characters. Loads no model."""
    check_output(output, if_exists="replace" if force else "refuse", inputs=[memory_path])
    memory = load_memories([memory_path])
    source = document_source(memory, document)
    start, end = parse_range(characters, chars=len(source), option="A:B")
    return saved(memory.slice(start, end, document=document), output)
