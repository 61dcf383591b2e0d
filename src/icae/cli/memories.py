"""Memory files of a command: which are read, what is needed of them, where one is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from icae.cli.console import note, status
from icae.cli.options import Force
from icae.errors import IncompatibleMemoryError, InputError

if TYPE_CHECKING:
    from icae.memory import Memory, Provenance
    from icae.memory.locked_file import LockedFile
    from icae.store import MemoryStore

MemoryPath = Annotated[Path, Argument(metavar="MEMORY", help="A memory file (.icae).")]

MemoryPaths = Annotated[
    list[Path],
    Argument(metavar="MEMORY", help="Memory files (.icae); several are concatenated."),
]


def check_output(path: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse an output file that would destroy something or cannot be written, with an InputError.

    With `force` a file that is there already may be replaced, but for the inputs of the command.
    """
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise InputError(
                "The output is the input itself.", got=str(path), fix="Name another output file."
            )
    if path.is_dir():
        raise InputError(
            "The output is a folder.", got=str(path), expected="the path of a file to write"
        )
    if path.exists() and not force:
        raise InputError(
            "The output file exists already.",
            got=str(path),
            fix="Add --force to replace it, or name another file with --output.",
        )
    if not path.parent.is_dir():
        raise InputError(
            "The folder of the output file does not exist.",
            got=str(path.parent),
            fix="Create it first, or name another file with --output.",
        )
    if not os.access(path.parent, os.W_OK):
        raise InputError("The folder of the output file is not writable.", got=str(path.parent))


@contextmanager
def locked_output(path: Path, *, force: bool, inputs: Sequence[Path] = ()) -> Iterator[LockedFile]:
    """The output file of a command, which no other process changes in the meantime.

    An InputError as for `check_output`; a MemoryFileError if another process has it for too long.
    """
    from icae.memory.locked_file import locked

    check_output(path, force=force, inputs=inputs)
    with ExitStack() as stack:
        with status(f"Waiting for {path.name}"):
            file = stack.enter_context(locked(path))
        check_output(path, force=force, inputs=inputs)  # it may be there since it was waited for
        yield file


@dataclass(frozen=True, kw_only=True)
class NewMemory:
    """Where a new memory goes."""

    output: Annotated[Path, Option("--output", "-o", metavar="PATH", help="Memory file to write.")]
    force: Force = False

    def locked(self, *inputs: Path) -> AbstractContextManager[LockedFile]:
        """The file to write; raises as `locked_output` does."""
        return locked_output(self.output, force=self.force, inputs=inputs)


@dataclass(frozen=True, kw_only=True)
class ChangedMemory:
    """Where a changed memory goes: in the place of the old one, if nothing is said."""

    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Memory file to write.",
            show_default="MEMORY itself is replaced",
        ),
    ] = None
    force: Force = False

    def check(self, memory: Path) -> None:
        """Refuse a file that cannot be written, as `check_output` does, before long work."""
        if self.output is None:
            check_output(memory, force=True)
        else:
            check_output(self.output, force=self.force, inputs=[memory])

    def locked(self, memory: Path) -> AbstractContextManager[LockedFile]:
        """The file to write; raises as `locked_output` does."""
        if self.output is None:
            return locked_output(memory, force=True)
        return locked_output(self.output, force=self.force, inputs=[memory])


def write_output(path: Path, text: str) -> None:
    """Write a text file; an InputError if that cannot be."""
    try:
        path.write_text(text, encoding="utf-8", errors="replace", newline="")
    except OSError as error:
        raise InputError(f"{path} cannot be written.", got=str(error.strerror)) from error


def load_memories(*paths: Path) -> Memory:
    """Read memory files and concatenate them in order.

    A MemoryFileError if one cannot be read, an IncompatibleMemoryError if they do not fit together.
    """
    from icae.memory import Memory, merge

    loaded = [Memory.load(path) for path in paths]
    return loaded[0] if len(loaded) == 1 else merge(loaded)


def require_source(memory: Memory, option: str) -> None:
    """Raise an InputError if the text of a document, which an option needs, was not kept."""
    missing = [document.name for document in memory.documents if document.source is None]
    if missing:
        raise InputError(
            f"{option} needs the text of the documents, and the memory kept none of it."
            if len(missing) == len(memory.documents)
            else f"{option} needs the text of every document.",
            got=f"no source text for {', '.join(missing)}",
            expected="a memory compressed without --no-source",
            fix=f"Leave {option} out, or compress the document again.",
        )


def token_places(memory: Memory, base: str | None) -> list[Sequence[int] | None]:
    """Character at which each token starts, for each document: loads the tokenizer, no model.

    It is that of the base that the memory names, or of another name of it. None stands for a
    document whose text was not kept, or does not give the tokens that it was compressed from.

    Raises:
        BaseModelError: If the tokenizer cannot be loaded.
        IncompatibleMemoryError: If it is not the one that the memory was made with.
    """
    from icae.decode.reader import places_in
    from icae.model.base import load_tokenizer
    from icae.model.base_files import tokenizer_hash

    name = base or memory.provenance.base_model
    tokenizer = load_tokenizer(name)
    digest = tokenizer_hash(tokenizer)
    if digest != memory.provenance.tokenizer_hash:
        raise IncompatibleMemoryError(
            f"The tokenizer of {name} is not the one that the memory was made with.",
            got=f"tokenizer {digest}",
            expected=f"tokenizer {memory.provenance.tokenizer_hash}",
            fix="Name the base model of the memory with --base.",
        )
    return [places_in(document, tokenizer) for document in memory.documents]


def maker_of(store: MemoryStore) -> Provenance | None:
    """What made the memories of a store, if one adapter made them all."""
    makers = {record.provenance.adapter_hash: record.provenance for record in store.records()}
    if len(makers) > 1:
        note(
            f"{store.location} has memories of {len(makers)} adapters; those of the one that is "
            "loaded are answered from. `icae upgrade --store` compresses the others again."
        )
        return None
    return next(iter(makers.values()), None)
