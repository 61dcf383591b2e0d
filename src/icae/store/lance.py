"""A memory store kept by Lance: a folder, or a URI in object storage; needs ``icae[lance]``.

One table holds a row for each memory and one for each passage, so that adding and
removing are one commit each: a killed process leaves the version before or after it.
Weaker than the SQLite store in three ways. Two processes that change the same memory at
once do not wait for each other: one gets an error and has to try again. Two that give
one new name to different memories at once may both succeed; `verify` reports that. And
`collect` gives space back only once the older versions of the table expire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from icae.errors import (
    IcaeError,
    MemoryFileError,
    MissingDependencyError,
    MissingMemoryError,
    StoreError,
)
from icae.memory import Memory, Provenance, memory_from_bytes
from icae.store.base import Added, Collected, NewMemory, Problem, SearchHit, StoredMemory
from icae.store.keys import MIN_PREFIX, maker_hash, memory_key, text_digest
from icae.store.lance_rows import (
    COLUMNS,
    Row,
    hit_of,
    memory_row,
    move_name,
    passage_rows,
    quoted,
    record_of,
    schema,
    without,
)
from icae.store.passages import passages_of
from icae.store.prepared import check_name, prepare
from icae.store.query import words_of


def _lance() -> Any:
    """The library, imported on first use.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        import lance
    except ImportError as error:
        raise MissingDependencyError(
            "A store whose name ends in .lance needs Lance.",
            got=str(error),
            fix='pip install "icae[lance]", or name a file, for example memories.db.',
        ) from error
    return lance


class LanceStore:
    """A `MemoryStore` in a Lance table; open one with `open` or `create`."""

    def __init__(self, location: str, table: Any) -> None:
        self._location = location
        self._table = table

    @classmethod
    def open(cls, location: str) -> Self:
        """Open a store that exists.

        Args:
            location: Folder or URI.

        Raises:
            StoreError: If there is none, or it is another table.
            MissingDependencyError: If Lance is not installed.
        """
        lance = _lance()
        with _translated(location):
            table = lance.dataset(location)
        if tuple(table.schema.names) != COLUMNS:
            raise StoreError(
                f"{location} is not a store.",
                got=f"a table with the columns {', '.join(table.schema.names)}",
                expected=", ".join(COLUMNS),
                fix="Give the path of a store that `icae store add` made.",
            )
        return cls(location, table)

    @classmethod
    def create(cls, location: str) -> Self:
        """Open a store, which is made if there is none.

        Args:
            location: Folder or URI.

        Raises:
            StoreError: As for `open`, or if it cannot be made.
            MissingDependencyError: If Lance is not installed.
        """
        lance = _lance()
        try:
            return cls.open(location)
        except StoreError as error:
            if not isinstance(error.__cause__, ValueError | FileNotFoundError):
                raise
        with _translated(location):
            lance.write_dataset(schema().empty_table(), location, mode="create")
        return cls.open(location)

    @property
    def location(self) -> str:
        """Folder or URI."""
        return self._location

    def add(self, items: Sequence[NewMemory]) -> list[Added]:
        """Put memories into the store in one commit; see `MemoryStore.add`."""
        prepared = [prepare(item) for item in items]
        self._refresh()
        known = {row["key"]: row for row in self._memories()}
        changed: dict[str, Row] = {}
        added = []
        for item in prepared:
            new = item.key not in known
            if new:
                known[item.key] = memory_row(item)
                changed |= {row["id"]: row for row in passage_rows(item)}
            replaced = move_name(known, item.name, item.key, changed)
            added.append(Added(name=item.name, key=item.key, new=new, replaced=replaced))
        self._write(changed)
        return added

    def link(self, key: str, *, name: str) -> Added | None:
        """Give a stored memory a name; see `MemoryStore.link`."""
        check_name(name)
        self._refresh()
        known = {row["key"]: row for row in self._memories()}
        if key not in known:
            return None
        changed: dict[str, Row] = {}
        replaced = move_name(known, name, key, changed)
        self._write(changed)
        return Added(name=name, key=key, new=False, replaced=replaced)

    def records(self, *, under: str = "") -> list[StoredMemory]:
        """All memories, those with names first; see `MemoryStore.records`."""
        self._refresh()
        records = [
            record
            for record in map(record_of, self._memories())
            if not under or any(name.startswith(under) for name in record.names)
        ]
        return sorted(records, key=lambda record: (not record.names, record.names, record.key))

    def get(self, reference: str) -> StoredMemory:
        """What the store knows about a memory; see `MemoryStore.get`."""
        check_name(reference)
        records = self.records()
        named = [record for record in records if reference in record.names]
        return named[0] if named else self._with_prefix(records, reference)

    def load(self, reference: str) -> Memory:
        """Read a memory and check all of it; see `MemoryStore.load`."""
        key = self.get(reference).key
        (row,) = self._rows(f"id = '{key}'", ["data"])
        try:
            return memory_from_bytes(row["data"] or b"", where=f"memory {key} of {self.location}")
        except MemoryFileError as error:
            raise StoreError(
                f"A memory in {self.location} is damaged.",
                got=f"{key}: {error.got or error.message}",
                fix="Drop it with `icae store rm --key` and add the document again.",
            ) from error

    def export(self, reference: str, path: Path) -> None:
        """Write a memory to an ``.icae`` file; see `MemoryStore.export`."""
        self.load(reference).save(path)

    def search(
        self, query: str, *, limit: int = 10, made_by: Provenance | None = None
    ) -> list[SearchHit]:
        """Find passages by their words; see `MemoryStore.search`."""
        words = " ".join(words_of(query))
        records = {record.key: record for record in self.records() if record.names}
        if made_by is not None:
            maker = maker_hash(made_by)
            records = {k: r for k, r in records.items() if maker_hash(r.provenance) == maker}
        if not records:
            return []
        with _translated(self.location):
            found = self._table.to_table(
                columns=["key", "record", "text", "_score"],
                full_text_query=words,
                filter=f"kind = 'passage' AND key IN ({quoted(records)})",
                prefilter=True,
                limit=limit,
            ).to_pylist()
        found.sort(key=lambda row: -row["_score"])
        return [hit_of(row, records[row["key"]], query) for row in found]

    def remove_name(self, name: str) -> str:
        """Drop a name; see `MemoryStore.remove_name`."""
        check_name(name)
        self._refresh()
        named = [row for row in self._memories() if name in row["names"]]
        if not named:
            raise self._absent(f"name {name!r}")
        changed = {row["id"]: {**row, "names": without(row, name)} for row in named}
        self._write(changed)
        return str(named[0]["key"])

    def remove(self, key: str) -> StoredMemory:
        """Drop a memory and its names; see `MemoryStore.remove`."""
        record = self._with_prefix(self.records(), key)
        self._delete([record.key])
        return record

    def collect(self) -> Collected:
        """Drop the memories without a name; see `MemoryStore.collect`."""
        dropped = [record for record in self.records() if not record.names]
        if dropped:
            self._delete([record.key for record in dropped])
        with _translated(self.location):
            self._table.optimize.compact_files()
            self._table.optimize.optimize_indices()
            self._table.cleanup_old_versions()
        return Collected(memories=len(dropped), bytes=sum(record.bytes for record in dropped))

    def verify(self) -> list[Problem]:
        """Read everything and report what is wrong; see `MemoryStore.verify`."""
        self._refresh()
        problems, owner = [], dict[str, str]()
        for row in self._rows("kind = 'memory'", ["key", "names"]):
            problems += [Problem(key=row["key"], message=m) for m in self._check(row["key"])]
            for name in row["names"]:
                if owner.setdefault(name, row["key"]) != row["key"]:
                    problems.append(Problem(key=row["key"], message=f"{name!r} has two memories"))
        return problems

    def close(self) -> None:
        """Let go of the table."""
        self._table = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self, key: str) -> Iterator[str]:
        """What is wrong with one memory."""
        rows = self._rows(f"key = '{key}'", list(COLUMNS))
        memories = [row for row in rows if row["kind"] == "memory"]
        if len(memories) != 1:
            yield f"it has {len(memories)} rows"
            return
        record = record_of(memories[0])
        data = memories[0]["data"] or b""
        if hashlib.sha256(data).hexdigest() != record.sha256 or len(data) != record.bytes:
            yield "its bytes do not match their digest"
            return
        try:
            memory = memory_from_bytes(data, where="the memory")
        except IcaeError as error:
            yield f"{error.message} ({error.got})"
            return
        if memory_key(text_digest(memory), memory.provenance, record.settings) != key:
            yield "its key is not that of its text, models and settings"
        stored = sorted(row["id"] + row["text"] for row in rows if row["kind"] == "passage")
        if stored != [
            f"{key}/{n:06}{passage.text}" for n, passage in enumerate(passages_of(memory))
        ]:
            yield "its passages are not those of its text"

    def _memories(self) -> list[Row]:
        """The rows of all memories without their bytes."""
        return self._rows("kind = 'memory'", [name for name in COLUMNS if name != "data"])

    def _rows(self, where: str, columns: list[str]) -> list[Row]:
        with _translated(self.location):
            rows: list[Row] = self._table.to_table(columns=columns, filter=where).to_pylist()
        return rows

    def _refresh(self) -> None:
        """See what other processes have committed."""
        with _translated(self.location):
            self._table.checkout_latest()

    def _write(self, changed: Mapping[str, Row]) -> None:
        """Insert or replace rows in one commit; rows read without their bytes get them back."""
        import pyarrow as pa

        bare = [row_id for row_id, row in changed.items() if "data" not in row]
        kept = {}
        if bare:
            kept = {
                r["id"]: r["data"] for r in self._rows(f"id IN ({quoted(bare)})", ["id", "data"])
            }
        rows = [{**row, "data": row.get("data", kept.get(i))} for i, row in changed.items()]
        if not rows:
            return
        with _translated(self.location):
            merge = self._table.merge_insert("id").when_matched_update_all()
            merge = merge.when_not_matched_insert_all().conflict_retries(0)
            merge.execute(pa.Table.from_pylist(rows, schema=schema()))
            self._table.checkout_latest()
            if not self._table.describe_indices():
                self._table.create_scalar_index("text", "INVERTED", stem=True, ascii_folding=True)

    def _delete(self, keys: Sequence[str]) -> None:
        with _translated(self.location):
            self._table.delete(f"key IN ({quoted(keys)})")

    def _with_prefix(self, records: Sequence[StoredMemory], key: str) -> StoredMemory:
        """The one memory whose key starts like this."""
        fitting = [r for r in records if len(key) >= MIN_PREFIX and r.key.startswith(key)]
        if not fitting:
            raise self._absent(repr(key))
        if len(fitting) > 1:
            raise StoreError(
                "The start of the key fits several memories.", got=key, fix="Give more digits."
            )
        return fitting[0]

    def _absent(self, got: str) -> MissingMemoryError:
        return MissingMemoryError(
            f"There is no such memory in {self.location}.",
            got=got,
            expected=f"a name, or at least {MIN_PREFIX} digits of a key",
            fix="Look it up with `icae store list`.",
        )


@contextmanager
def _translated(location: str) -> Iterator[None]:
    """Turn the errors of Lance into StoreError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(
            f"The store {location} cannot be read or written.",
            got=str(error).partition("\n")[0][:300],
            fix="Check path and permissions; if another process was at work, try again.",
        ) from error
