"""`icae upgrade`: memories of another adapter, compressed again from the text that they keep."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.memories import check_output
from icae.cli.options import ModelOptions
from icae.errors import InputError

if TYPE_CHECKING:
    from icae.memory import Memory, Provenance
    from icae.store import MemoryStore, Settings, StoredMemory

Change = Callable[["Memory"], "Memory"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A memory in a file or a store.

    Attributes:
        name: Its path or its names.
        made_by: What made it.
        load: Reads it.
        change: Puts what a function makes of it in its place, wholly or not at all; gives it.
    """

    name: str
    made_by: Provenance
    load: Callable[[], Memory]
    change: Callable[[Change], Memory]


@command
def upgrade(
    *,
    memories: Annotated[
        list[Path] | None, Argument(metavar="[MEMORY...]", show_default=False)
    ] = None,
    store: Annotated[
        str | None, Option("--store", "-s", metavar="PATH", show_default=False)
    ] = None,
    dry_run: bool = False,
    model: ModelOptions,
) -> Outcome:
    """Compress memories of another adapter again, by the default one or by --adapter.

    Names, documents and ratios stay, and what is verbatim stays so; refinement is not done again.
    A memory changes wholly or not at all. Stopped, the same command goes on. It needs the text
    that memories keep; of a store, those without it stay as they are.

    Args:
        memories: Memory files (.icae).
        store: All memories of a store that have a name, in place of memory files.
        dry_run: Say what would be done; loads no model.
    """
    if bool(memories) == (store is not None):
        raise BadParameter("give memory files, or a store with --store.", param_hint="MEMORY")
    from icae.model.adapter_files import adapter_folder, adapter_hash, read_info

    start, folder = time.perf_counter(), adapter_folder(model.adapter)
    name, own = read_info(folder).name, adapter_hash(folder)
    with _targets(memories or [], store) as targets:
        old, told, lacking = _chosen(targets, own)
        if lacking and store is None:
            raise InputError(
                "Memories can be compressed again from their text alone, and some kept none.",
                got=f"no source text in {', '.join(lacking)}",
                expected="memories compressed without --no-source",
                fix="Leave these out: the adapter that made them still reads them.",
            )
        if old and not dry_run:
            _upgrade(old, told, model)
    payload = {
        "adapter": name,
        "dry_run": dry_run,
        "upgraded": told,
        "without_text": lacking,
        "current": len(targets) - len(old) - len(lacking),
        "seconds": round(time.perf_counter() - start, 3),
    }
    return Outcome(payload=payload, show=lambda: _show(payload))


@contextmanager
def _targets(paths: Sequence[Path], store: str | None) -> Iterator[list[Target]]:
    """The memories, each once; a store stays open for them."""
    from icae.memory import Memory, read_header
    from icae.store import open_store

    for path in paths:
        check_output(path, force=True)
    if store is None:
        yield [
            Target(
                name=str(path),
                made_by=read_header(path).provenance,
                load=functools.partial(Memory.load, path),
                change=functools.partial(_change_file, path),
            )
            for path in dict.fromkeys(paths)
        ]
        return
    with open_store(store) as opened:
        yield [
            Target(
                name=", ".join(record.names),
                made_by=record.provenance,
                load=functools.partial(opened.load, record.key),
                change=functools.partial(_change_stored, opened, record),
            )
            for record in opened.records()
            if record.names
        ]


def _chosen(
    targets: Sequence[Target], own: str
) -> tuple[list[Target], list[dict[str, Any]], list[str]]:
    """The memories of other adapters, their figures, and the names of those without a text."""
    old, told, lacking = [], [], []
    for target in targets:
        if target.made_by.adapter_hash != own:
            memory = target.load()
            if any(document.source is None for document in memory.documents):
                lacking.append(target.name)
            else:
                old.append(target)
                told.append({"name": target.name} | _figures(memory, "_before"))
    return old, told, lacking


def _change_file(path: Path, change: Change) -> Memory:
    from icae.memory import locked

    with locked(path) as file:
        memory = change(file.load())
        file.save(memory)
    return memory


def _change_stored(store: MemoryStore, record: StoredMemory, change: Change) -> Memory:
    """Give the names of a stored memory to the new one; gc drops the old one."""
    from icae.memory import memory_bytes
    from icae.store import NewMemory

    memory = change(store.load(record.key))
    settings: Settings | None = None  # those that the memory shows
    if "content" in record.settings:  # with what else its address was made of
        digest = hashlib.sha256(memory_bytes(memory)).hexdigest()
        settings = {**record.settings, "content": digest}
    new = functools.partial(NewMemory, memory=memory, settings=settings, replaces=record.key)
    store.add([new(name=name) for name in record.names])
    return memory


def _figures(memory: Memory, when: str) -> dict[str, Any]:
    """A memory before or after as ``--json`` prints it."""
    figures = {
        "adapter": memory.provenance.adapter,
        "tokens": memory.tokens,
        "positions": memory.positions,
        "fidelity": memory.fidelity,
    }
    return {f"{key}{when}": value for key, value in figures.items()}


def _upgrade(
    targets: Sequence[Target], told: Sequence[dict[str, Any]], model: ModelOptions
) -> None:
    """Compress memories again, one after the other; what became of each is added to its figures."""
    icae = model.load()
    total, done = sum(one["tokens_before"] for one in told), 0
    with console.progress("Compressing again") as on_progress:
        for target, one in zip(targets, told, strict=True):
            tokens = one["tokens_before"]

            def tell(spans: int, of: int, before: int = done, tokens: int = tokens) -> None:
                on_progress(before + tokens * spans // of, total)

            one |= _figures(target.change(functools.partial(icae.upgrade, on_progress=tell)), "")
            done += tokens


def _show(payload: dict[str, Any]) -> None:
    """Print a line for each memory, then the counts."""
    verb = "would be" if payload["dry_run"] else "were"
    for one in payload["upgraded"]:
        now = "" if payload["dry_run"] else f" -> {console.percent_text(one['fidelity'])}"
        fidelity = f"fidelity {console.percent_text(one['fidelity_before'])}{now}"
        name = console.preview(one["name"], width=96)
        console.write_text(f"{name}  {one['tokens_before']} tokens, {fidelity}\n")
    told = [f"{len(payload['upgraded'])} memories {verb} compressed again by {payload['adapter']}"]
    told += [f"{payload['current']} are its own already"] * bool(payload["current"])
    if payload["without_text"]:
        told += [f"no text was kept, so these stay: {', '.join(payload['without_text'])}"]
    console.write_text("; ".join(told) + "\n")
