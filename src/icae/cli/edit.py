"""`icae append`, `edit`, `slice` and `merge`: memories changed, cut and joined."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Option

from icae.cli.command import Outcome, command
from icae.cli.memories import (
    ChangedMemory,
    MemoryPath,
    MemoryPaths,
    NewMemory,
    load_memories,
)
from icae.cli.memory_tables import saved
from icae.cli.options import ModelOptions

if TYPE_CHECKING:
    from icae.memory import Memory
    from icae.memory.locked_file import LockedFile

_RANGE = re.compile(r"([0-9]{0,18}):([0-9]{0,18})")

DocumentIndex = Annotated[
    int,
    Option("--document", metavar="N", help="Which document of the memory, from 0; -1 is the last."),
]

NearRatio = Annotated[
    float | None,
    Option(
        "--ratio",
        metavar="N",
        help="Context tokens per slot of the new spans.",
        show_default="that of the nearest span",
    ),
]


@command
def append(
    *,
    memory_path: MemoryPath,
    file: Annotated[str, Argument(metavar="FILE")],
    document: DocumentIndex = -1,
    output: ChangedMemory,
    ratio: NearRatio = None,
    model: ModelOptions,
) -> Outcome:
    """Append text to a document of a memory, on a new line; only new spans are encoded.

    Args:
        file: Text to append; - reads standard input.
    """
    output.check(memory_path)
    memory = load_memories(memory_path)
    _source(memory, document)
    text = _read(file)
    icae = model.load(memory.provenance)
    with output.locked(memory_path) as target:  # not while the model is loaded: others append, too
        memory = load_memories(memory_path)
        source = _source(memory, document)
        joint = "" if source[-1:].isspace() or text[:1].isspace() else "\n"
        start = time.perf_counter()
        longer = icae.append(memory, joint + text, document=document, ratio=ratio)
        return _saved(memory, longer, target, start)


@command
def edit(
    *,
    memory_path: MemoryPath,
    delete: Annotated[str | None, Option(metavar="A:B")] = None,
    replace: Annotated[tuple[str, str] | None, Option(metavar="A:B FILE")] = None,
    document: DocumentIndex = 0,
    output: ChangedMemory,
    ratio: NearRatio = None,
    model: ModelOptions,
) -> Outcome:
    """Delete or replace characters of a document; only the spans they touch are encoded.

    Args:
        delete: Delete the characters A to B (exclusive).
        replace: Put the text of FILE in their place; - reads standard input.
    """
    if (delete is None) == (replace is None):
        raise BadParameter(
            "give one of the two: --delete A:B, or --replace A:B FILE.",
            param_hint="--delete / --replace",
        )
    with output.locked(memory_path) as target:
        memory = load_memories(memory_path)
        source = _source(memory, document)
        if replace is not None:
            (first, last), text = _range(replace[0], source, "--replace"), _read(replace[1])
        else:
            (first, last), text = _range(delete or "", source, "--delete"), ""
        icae = model.load(memory.provenance)
        start = time.perf_counter()
        changed = icae.replace(memory, first, last, text, document=document, ratio=ratio)
        return _saved(memory, changed, target, start)


@command
def slice_memory(
    *,
    memory_path: MemoryPath,
    characters: Annotated[str, Argument(metavar="A:B")],
    output: NewMemory,
    document: DocumentIndex = 0,
) -> Outcome:
    """Cut out the spans that hold some characters. Loads no model.

    Args:
        characters: Characters A to B (exclusive) of the document.
    """
    with output.locked(memory_path) as target:
        memory = load_memories(memory_path)
        first, last = _range(characters, _source(memory, document), "A:B")
        return saved(memory.slice(first, last, document=document), target)


@command
def merge(*, memories: MemoryPaths, output: NewMemory) -> Outcome:
    """Put the documents of several memories into one file, in order. Loads no model."""
    with output.locked(*memories) as target:
        return saved(load_memories(*memories), target)


def _read(file: str) -> str:
    from icae.data.documents import read_document

    return read_document(file).text


def _source(memory: Memory, document: int) -> str:
    return memory.documents[memory.document_index(document)].require_source()


def _range(text: str, source: str, option: str) -> tuple[int, int]:
    """First character and one past the last of ``A:B``; either may be left out."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise BadParameter(
            f"{text!r} is not a range of characters, for example 1200:2400.", param_hint=option
        )
    start, end = match.groups()
    return int(start or 0), int(end) if end else len(source)


def _saved(before: Memory, after: Memory, target: LockedFile, start: float) -> Outcome:
    """Write a changed memory and say how many of its spans were not there before."""
    old = {_content(before, i) for i in range(len(before.spans))}
    new = sum(_content(after, i) not in old for i in range(len(after.spans)))
    seconds = round(time.perf_counter() - start, 3)
    return saved(after, target, encoded_spans=new, seconds=seconds)


def _content(memory: Memory, index: int) -> tuple[object, ...]:
    span = memory.spans[index]
    return memory.span_source(index), span.slots_KD.tobytes(), span.verbatim_ids.tobytes()
