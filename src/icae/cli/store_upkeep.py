"""`icae store rm`, `gc` and `verify`: dropping memories and checking what is left."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from icae.cli import console
from icae.cli.options import AsJson
from icae.cli.outcome import Outcome, reported
from icae.cli.store_options import KEY_DIGITS, StorePath
from icae.errors import StoreError

MOST_PROBLEMS = 20
"""Most problems that an error lists."""


@reported
def remove(
    references: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names to drop; keys with --key.")
    ],
    store: StorePath,
    key: Annotated[
        bool, typer.Option("--key", help="Drop memories by their keys, with all their names.")
    ] = False,
    as_json: AsJson = False,
) -> Outcome:
    """Drop names from a store; gc drops the memories that have none left."""
    from icae.store import open_store

    removed: list[dict[str, Any]] = []
    with open_store(store) as opened:
        for reference in references:
            if key:
                record = opened.remove(reference)
                removed.append({"key": record.key, "names": list(record.names)})
            else:
                removed.append({"key": opened.remove_name(reference), "names": [reference]})
    return Outcome(
        payload={"store": store, "removed": removed}, show=lambda: _show_removed(removed)
    )


@reported
def collect(store: StorePath, as_json: AsJson = False) -> Outcome:
    """Drop the memories that have no name and give their space back."""
    from icae.store import open_store

    with open_store(store) as opened:
        collected = opened.collect()
    size = console.size_text(collected.bytes)
    return Outcome(
        payload={"store": store, "memories": collected.memories, "bytes": collected.bytes},
        show=lambda: console.write_text(f"{collected.memories} memories dropped, {size} freed\n"),
    )


@reported
def verify(store: StorePath, as_json: AsJson = False) -> Outcome:
    """Read all of a store and check it; exit with 1 if something is wrong."""
    from icae.store import open_store

    with open_store(store) as opened, console.status("Checking the store"):
        problems = opened.verify()
        count = len(opened.records()) if not problems else 0
    if problems:
        lines = [
            problem.message if problem.key is None else f"{problem.key}: {problem.message}"
            for problem in problems[:MOST_PROBLEMS]
        ]
        more = len(problems) - len(lines)
        raise StoreError(
            f"The store {store} has {len(problems)} problems.",
            got="; ".join(lines) + (f"; and {more} more" if more else ""),
            expected="a sound store",
            fix="Drop damaged memories with `icae store rm --key` and add the documents again, "
            "or restore the store from a copy.",
        )
    return Outcome(
        payload={"store": store, "memories": count, "problems": []},
        show=lambda: console.write_text(f"{count} memories, no problem\n"),
    )


def _show_removed(removed: list[dict[str, Any]]) -> None:
    """Print one line for each name or memory that was dropped."""
    for one in removed:
        names = ", ".join(one["names"]) or "(no name)"
        console.write_text(f"{one['key'][:KEY_DIGITS]}  {console.preview(names, width=96)}\n")
