"""`icae store`: many memories in one place, added, listed, found, checked and dropped."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.padding import Padding
from typer import Argument, BadParameter, Option

from icae.cli import console
from icae.cli.command import AsJson, Outcome, command
from icae.cli.compress import CompressOptions, warn_of_script
from icae.cli.memories import check_output
from icae.cli.options import Count, Force, ModelOptions
from icae.errors import IcaeError, InputError, MemoryFileError, StoreError

if TYPE_CHECKING:
    from icae.engine import Engine
    from icae.store import Added, MemoryStore, SearchHit, Settings, StoredMemory

KEY_DIGITS = 12
"""Digits of a key that are shown to people."""

MOST_PROBLEMS = 20
"""Most problems that an error lists."""

_STORE_HELP = "The store: a SQLite file."
StorePath = Annotated[
    str, Option("--store", "-s", metavar="PATH", envvar="ICAE_STORE", help=_STORE_HELP)
]


@command
def add(
    *,
    files: Annotated[list[str], Argument(metavar="FILE...")],
    store: StorePath,
    name: Annotated[str | None, Option(metavar="NAME", show_default="the path as given")] = None,
    wanted: CompressOptions,
    model: ModelOptions,
    as_json: AsJson = False,
) -> Outcome:
    """Add documents to a store, which is made if there is none.

    A document that is there already, compressed alike by the same adapter, is not
    compressed again. Each file is safe in the store before the next one is read; one that
    cannot be read is listed at the end, and the exit code is then 1.

    Args:
        files: Documents to compress and memory files (.icae); - reads standard input.
        name: Name in the store.
    """
    from icae.store import create_store

    names = _names(files, name)
    start = time.perf_counter()
    added: list[Added] = []
    failed: list[tuple[str, IcaeError]] = []
    load = functools.cache(model.load)
    with create_store(store) as opened:
        for file, own_name in zip(files, names, strict=True):
            try:
                one = _add_file(opened, file, own_name, wanted, load)
            except (InputError, MemoryFileError) as error:
                if len(files) == 1:
                    raise
                failed.append((file, error))
                continue
            added.append(one)
            if not as_json:
                console.write_text(_added_line(one))
    payload = {
        "store": store,
        "added": [
            {name: value for name, value in asdict(one).items() if name != "stored"}
            for one in added
        ],
        "failed": [
            {"file": file, **{part: getattr(error, part) for part in ("message", "got", "fix")}}
            for file, error in failed
        ],
        "seconds": round(time.perf_counter() - start, 3),
    }
    return Outcome(
        payload=payload, show=lambda: _show_failed(failed, len(files)), exit_code=bool(failed)
    )


def _added_line(one: Added) -> str:
    how = "added" if one.new else "was there already"
    was = "" if one.replaced is None else f"; was {one.replaced[:KEY_DIGITS]} before"
    return _line(one.key, one.name) + f"  {how}{was}\n"


def _show_failed(failed: Sequence[tuple[str, IcaeError]], count: int) -> None:
    """Print the files that could not be added, with the reasons."""
    if failed:
        console.write_text(f"\n{len(failed)} of {count} files were not added:\n")
        console.print_figures(
            {console.preview(file, width=999): _reason(file, error) for file, error in failed}
        )


def _reason(file: str, error: IcaeError) -> str:
    """What an error says, without the name of the file."""
    parts = [error.message.removeprefix(f"{file} ").rstrip("."), error.got or ""]
    for name in (file, Path(file).name):
        parts[1] = parts[1].removeprefix(name).removeprefix(": ")
    return ": ".join(filter(None, parts))


@command
def list_memories(*, store: StorePath) -> Outcome:
    """List the memories of a store."""
    with _opened(store) as opened:
        records = opened.records()
    payload = {"store": store, "memories": [_record_payload(record) for record in records]}
    return Outcome(payload=payload, show=lambda: _show_list(records))


@command
def show(
    *,
    reference: Annotated[str, Argument(metavar="NAME")],
    store: StorePath,
    output: Annotated[Path | None, Option("--output", "-o", metavar="PATH")] = None,
    force: Force = False,
) -> Outcome:
    """Say what a store knows about one memory; --output takes it out.

    Args:
        reference: Name of a memory, or its key, of which 8 digits are enough.
        output: Write it to a memory file, too.
    """
    if output is not None:
        check_output(output, force=force, inputs=[Path(store)])
    with _opened(store) as opened:
        record = opened.get(reference)
        if output is not None:
            opened.load(record.key).save(output)
    payload = {"store": store, **_record_payload(record)}
    if output is not None:
        payload["output"] = str(output)
    return Outcome(payload=payload, show=lambda: _show_one(record))


@command
def search(
    *,
    query: Annotated[str, Argument(metavar="QUERY")],
    store: StorePath,
    limit: Count = 10,
) -> Outcome:
    """Find the passages of a store that have the words, the best first.

    Args:
        query: Words to look for.
        limit: Most passages to show.
    """
    with _opened(store) as opened:
        hits = opened.search(query, limit=limit)
    payload = {"store": store, "query": query, "hits": [_hit_payload(hit) for hit in hits]}

    def show_hits() -> None:
        out = console.results()
        for hit in hits:
            place = f"{hit.document} [{hit.char_start}:{hit.char_end}]"
            console.write_text(f"{place}  score {hit.score:.2f}\n")
            out.print(Padding(console.printable(hit.snippet), (0, 0, 0, 4), expand=False))
        if not hits:
            console.note("Nothing was found.")

    return Outcome(payload=payload, show=show_hits)


@command
def remove(
    *,
    references: Annotated[list[str], Argument(metavar="NAME...")],
    store: StorePath,
    key: bool = False,
) -> Outcome:
    """Drop names from a store; gc drops the memories that have none left.

    Args:
        references: Names to drop; keys with --key.
        key: Drop memories by their keys, with all their names.
    """
    removed: list[tuple[str, Sequence[str]]] = []
    with _opened(store) as opened:
        for reference in references:
            if key:
                record = opened.remove(reference)
                removed.append((record.key, record.names))
            else:
                removed.append((opened.remove_name(reference), [reference]))
    lines = [_line(own, ", ".join(names) or "(no name)") + "\n" for own, names in removed]
    return Outcome(
        payload={
            "store": store,
            "removed": [{"key": own, "names": list(names)} for own, names in removed],
        },
        show=lambda: console.write_text("".join(lines)),
    )


@command
def collect(*, store: StorePath) -> Outcome:
    """Drop the memories that have no name and give their space back."""
    with _opened(store) as opened:
        memories, freed = opened.collect()
    return Outcome(
        payload={"store": store, "memories": memories, "bytes": freed},
        show=lambda: console.write_text(
            f"{memories} memories dropped, {console.size_text(freed)} freed\n"
        ),
    )


@command
def verify(*, store: StorePath) -> Outcome:
    """Read all of a store and check it; exit with 1 if something is wrong."""
    with _opened(store) as opened, console.status("Checking the store"):
        problems = opened.verify()
        count = len(opened.records()) if not problems else 0
    if problems:
        more = len(problems) - MOST_PROBLEMS
        raise StoreError(
            f"The store {store} has {len(problems)} problems.",
            got="; ".join([*problems[:MOST_PROBLEMS], *[f"and {more} more"] * (more > 0)]),
            expected="a sound store",
            fix="Drop damaged memories with `icae store rm --key` and add the documents again, "
            "or restore the store from a copy.",
        )
    return Outcome(
        payload={"store": store, "memories": count, "problems": []},
        show=lambda: console.write_text(f"{count} memories, no problem\n"),
    )


def _opened(path: str) -> MemoryStore:
    from icae.store import open_store

    return open_store(path)


def _add_file(
    store: MemoryStore, file: str, name: str, wanted: CompressOptions, load: Callable[[], Engine]
) -> Added:
    """Add a memory file, or compress a document, unless the store has the result."""
    from icae.data.documents import read_document
    from icae.memory import Memory
    from icae.store import NewMemory, memory_key

    if Path(file).suffix == ".icae":
        return store.add([NewMemory(name=name, memory=Memory.load(file))])[0]
    document = read_document(file)
    icae = load()
    settings = _settings(wanted, icae)
    digest = hashlib.sha256(document.text.encode()).hexdigest()
    linked = store.link(memory_key(digest, icae.provenance, settings), name=name)
    if linked is not None:
        return linked
    refinement = wanted.refinement()
    with console.progress(f"Compressing {console.preview(name)}") as on_progress:
        memory = wanted.compress(icae, document, on_progress=on_progress)
        if refinement is not None:
            for better in icae.refine(memory, refinement, on_step=on_progress):
                memory = better
    warn_of_script(memory, icae, document)
    return store.add([NewMemory(name=name, memory=memory, settings=settings)])[0]


def _settings(wanted: CompressOptions, icae: Engine) -> Settings:
    """What is asked of the compressor, as the store records it."""
    from icae.store import compressor_settings

    policy, refinement = wanted.policy(icae), wanted.refinement()
    found: dict[str, str | int | float | bool] = {}
    if policy is None:
        ratio = icae.config.ratio_for(wanted.ratio)
        found |= compressor_settings(ratio=ratio, verify=not wanted.no_verify)
    else:
        refinement = policy.refine
        found["ratios"] = ",".join(f"{ratio:g}" for ratio in policy.ladder)
        if policy.min_fidelity is not None:
            found["min_fidelity"] = policy.min_fidelity
        if policy.budget is not None:
            found["budget"] = policy.budget
    if refinement is not None:
        found |= {f"refine.{name}": value for name, value in asdict(refinement).items()}
    return found


def _names(files: Sequence[str], name: str | None) -> list[str]:
    """The name of each file in the store."""
    if name is not None and len(files) > 1:
        raise BadParameter(f"one name cannot stand for {len(files)} files.", param_hint="--name")
    if name is None and "-" in files:
        raise BadParameter("standard input needs a name.", param_hint="--name")
    names = [Path(file).as_posix() for file in files] if name is None else [name]
    twice = sorted({one for one in names if names.count(one) > 1})
    if twice:
        raise BadParameter(f"given twice: {', '.join(twice)}.", param_hint="FILE")
    return names


def _record_payload(record: StoredMemory) -> dict[str, Any]:
    """A stored memory as ``--json`` prints it."""
    left_out = ("provenance", "text_sha256", "sha256")
    return {name: value for name, value in asdict(record).items() if name not in left_out} | {
        "ratio": record.tokens / record.positions,
        "adapter": record.provenance.adapter,
        "base_model": record.provenance.base_model,
    }


def _hit_payload(hit: SearchHit) -> dict[str, Any]:
    """A passage that was found, as ``--json`` prints it."""
    payload = asdict(hit)
    del payload["document_index"], payload["text"]
    return payload | {"spans": [payload.pop("span_first"), payload.pop("span_end")]}


def _line(key: str, name: str) -> str:
    return f"{key[:KEY_DIGITS]}  {console.preview(name, width=96)}"


def _names_text(record: StoredMemory) -> str:
    return ", ".join(record.names) or "(no name; gc drops it)"


def _show_list(records: list[StoredMemory]) -> None:
    """Print one line for each memory, then their sum."""
    figures = ("tokens", "positions", "fidelity", "size")
    out = console.results()
    table = console.table("key", *figures, "added", right=figures)
    table.add_column("names", no_wrap=True, overflow="ellipsis", ratio=1)
    table.expand = out.is_terminal  # there names are cut to its width, elsewhere nothing is
    for record in records:
        table.add_row(
            record.key[:KEY_DIGITS],
            str(record.tokens),
            str(record.positions),
            console.percent_text(record.fidelity),
            console.size_text(record.bytes),
            record.added_at[:10],
            console.preview(_names_text(record), width=96),
        )
    if not out.is_terminal:
        wide = out.measure(table, options=out.options.update(width=1000)).maximum
        out.width = max(out.width, wide)
    if records:
        out.print(table)
    size = console.size_text(sum(record.bytes for record in records))
    out.print(f"{len(records)} memories, {size}", soft_wrap=True)


def _show_one(record: StoredMemory) -> None:
    """Print everything about one memory."""
    made_by = record.provenance
    console.print_figures(
        {
            "key": record.key,
            "names": _names_text(record),
            "documents": str(record.documents),
            "passages": str(record.passages) if record.passages else "none: no text was kept",
            "tokens": str(record.tokens),
            "positions": f"{record.positions} ({record.tokens / record.positions:.2f} tokens each)",
            "fidelity": console.percent_text(record.fidelity),
            "settings": ", ".join(f"{key} {value}" for key, value in record.settings.items()),
            "adapter": made_by.adapter,
            "adapter hash": made_by.adapter_hash,
            "base model": made_by.base_model,
            "base hash": made_by.base_hash,
            "size": console.size_text(record.bytes),
            "added": record.added_at[:19],
        }
    )
