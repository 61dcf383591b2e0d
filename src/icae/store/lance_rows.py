"""The rows of a Lance store: one for each memory and one for each of its passages.

id       the key of the memory; of a passage, with its number after a slash
kind     ``memory`` or ``passage``
key      the key of the memory
maker    digest of what made the slots
names    the user's names for the memory
record   what the store knows about it, as JSON
data     its bytes
text     the text of the passage
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from icae.memory import Provenance
from icae.store.base import SearchHit, StoredMemory
from icae.store.keys import canonical_json, maker_hash
from icae.store.prepared import Prepared
from icae.store.query import snippet_of

COLUMNS = ("id", "kind", "key", "maker", "names", "record", "data", "text")
Row = dict[str, Any]


def schema() -> Any:
    """The Arrow schema of the table."""
    import pyarrow as pa

    types = dict.fromkeys(COLUMNS, pa.string())
    return pa.schema(types | {"names": pa.list_(pa.string()), "data": pa.large_binary()})


def quoted(keys: Iterable[str]) -> str:
    """Keys, which hold no quote, as a list in the language of Lance's filters."""
    return ", ".join(f"'{key}'" for key in keys)


def without(row: Row, name: str) -> list[str]:
    """The names of a memory but one."""
    return [other for other in row["names"] if other != name]


def move_name(known: dict[str, Row], name: str, key: str, changed: dict[str, Row]) -> str | None:
    """Let a name stand for a memory.

    Args:
        known: The rows of all memories by key; brought up to date.
        name: The name.
        key: Key of the memory.
        changed: Gets the rows that have to be written.

    Returns:
        Key of the memory that the name stood for before, if another.
    """
    before = next((row for row in known.values() if name in row["names"]), None)
    if before is not None and before["key"] == key:
        return None
    moved = {key: {**known[key], "names": sorted([*known[key]["names"], name])}}
    if before is not None:
        moved[before["key"]] = {**before, "names": without(before, name)}
    known |= moved
    changed |= moved
    return None if before is None else str(before["key"])


def memory_row(item: Prepared) -> Row:
    """The row of a memory that has no name yet."""
    record = {
        "text_sha256": item.text_sha256,
        "provenance": asdict(item.memory.provenance),
        "settings": dict(item.settings),
        "documents": len(item.memory.documents),
        "passages": len(item.passages),
        "tokens": item.memory.tokens,
        "positions": item.memory.positions,
        "fidelity": item.memory.fidelity,
        "bytes": len(item.data),
        "sha256": item.sha256,
        "added_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {
        "id": item.key,
        "kind": "memory",
        "key": item.key,
        "maker": maker_hash(item.memory.provenance),
        "names": [],
        "record": canonical_json(record),
        "data": item.data,
        "text": None,
    }


def passage_rows(item: Prepared) -> Iterator[Row]:
    """The rows of its passages."""
    for number, passage in enumerate(item.passages):
        described = asdict(passage)
        text = described.pop("text")
        yield {
            "id": f"{item.key}/{number:06}",
            "kind": "passage",
            "key": item.key,
            "maker": maker_hash(item.memory.provenance),
            "names": [],
            "record": canonical_json(described),
            "data": None,
            "text": text,
        }


def record_of(row: Row) -> StoredMemory:
    """What the store knows about the memory of a row."""
    known = json.loads(row["record"])
    provenance = Provenance(**known.pop("provenance"))
    return StoredMemory(key=row["key"], names=tuple(row["names"]), provenance=provenance, **known)


def hit_of(row: Row, record: StoredMemory, query: str) -> SearchHit:
    """A passage that was found, from its row and the record of its memory."""
    passage = json.loads(row["record"])
    own_name = passage.pop("document_name")
    name = record.names[0] if record.documents == 1 else f"{record.names[0]}/{own_name}"
    return SearchHit(
        key=record.key,
        document=name,
        document_index=passage.pop("document"),
        score=row["_score"],
        snippet=snippet_of(row["text"], query),
        **passage,
    )
