"""`icae edit`: characters of a memory deleted, or replaced by other text."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from icae.cli.answering import load_memories
from icae.cli.character_range import parse_range
from icae.cli.command import Outcome, command
from icae.cli.memory_output import (
    DocumentIndex,
    document_source,
    encoded_spans,
    saved,
)
from icae.cli.options import ChangedMemory, MemoryPath, ModelOptions, NearRatio


@command
def edit(
    *,
    memory_path: MemoryPath,
    delete: Annotated[
        str | None,
        typer.Option("--delete", metavar="A:B", help="Delete the characters A to B (exclusive)."),
    ] = None,
    replace: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--replace",
            metavar="A:B FILE",
            help="Put the text of FILE in their place; - reads standard input.",
        ),
    ] = None,
    document: DocumentIndex = 0,
    output: ChangedMemory,
    ratio: NearRatio = None,
    model: ModelOptions,
) -> Outcome:
    """Delete or replace characters of a document; only the spans they touch are encoded."""
    characters, option, file = _what(delete, replace)
    target = output.target(memory_path)
    memory = load_memories([memory_path])
    source = document_source(memory, document)
    start, end = parse_range(characters, chars=len(source), option=option)
    text = "" if file is None else _text(file)
    icae = model.load()
    begin = time.perf_counter()
    changed = icae.replace(memory, start, end, text, document=document, ratio=ratio)
    return saved(
        changed,
        target,
        encoded_spans=encoded_spans(memory, changed),
        seconds=round(time.perf_counter() - begin, 3),
    )


def _what(delete: str | None, replace: tuple[str, str] | None) -> tuple[str, str, str | None]:
    """The range, the option that names it, and the file with the new text, if any."""
    if replace is not None and delete is None:
        return replace[0], "--replace", replace[1]
    if delete is not None and replace is None:
        return delete, "--delete", None
    raise typer.BadParameter(
        "give one of the two: --delete A:B, or --replace A:B FILE.",
        param_hint="--delete / --replace",
    )


def _text(file: str) -> str:
    from icae.data.documents import read_document

    return read_document(file).text
