"""The folder of a bulk run: one Parquet part and one list of rejected documents a block.

A part appears whole, by renaming, after the list of its rejected documents; a block whose part is
there is done. Two workers that do the same block write the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from icae.config.atomic_write import write_atomically
from icae.data.rows import read_row_range, row_count, table_bytes
from icae.errors import InputError, ResultConflictError
from icae.serve.bulk.documents import Rejected

COLUMNS: Mapping[str, str] = {
    "id": "string",
    "place": "string",
    "sha256": "string",
    "tokens": "int64",
    "slots": "int64",
    "fidelity": "double",
    "memory": "binary",
}
"""Columns of the result, with their Arrow types."""

MANIFEST = "bulk.json"


class BulkFolder:
    """The folder of a bulk run; it need not be there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, manifest: Mapping[str, Any]) -> None:
        """Start a run made of such settings and input here, or go on with the same one.

        Raises:
            ResultConflictError: If the folder holds another run.
            InputError: If it holds something else, or cannot be written.
        """
        file = self.path / MANIFEST
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if file.exists():
                self._require_same(json.loads(file.read_text(encoding="utf-8")), manifest)
            elif any(self.path.iterdir()):
                raise InputError(
                    "The output folder is not empty.",
                    got=str(self.path),
                    expected="a new folder, or that of a bulk run to go on with",
                    fix="Name another folder.",
                )
            else:
                text = json.dumps(manifest, indent=1) + "\n"
                write_atomically(file, [text.encode("ascii")])
            for name in ("parts", "rejected"):
                (self.path / name).mkdir(exist_ok=True)
                for leftover in (self.path / name).glob(".icae-*.tmp"):  # of a killed worker
                    leftover.unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise InputError(
                "The output folder cannot be used.", got=f"{self.path}: {error}"
            ) from error

    def _require_same(self, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        plain = json.loads(json.dumps(wanted))
        keys = sorted(stored.keys() | plain.keys())
        changed = [key for key in keys if stored.get(key) != plain.get(key)]
        if changed:
            raise ResultConflictError(
                "The output folder holds another bulk run.",
                got=", ".join(f"{key} {_short(plain.get(key))}" for key in changed),
                expected=", ".join(f"{key} {_short(stored.get(key))}" for key in changed),
                fix="Go on with the same input and settings, or name another folder.",
            )

    def part(self, index: int) -> Path:
        """File of the memories of a block."""
        return self.path / "parts" / f"part-{index:08d}.parquet"

    def has(self, index: int) -> bool:
        """Whether a block is done."""
        return self.part(index).exists()

    def write(
        self, index: int, rows: Sequence[Mapping[str, Any]], rejected: Sequence[Rejected]
    ) -> None:
        """Write a block, whole or not at all: rows of `COLUMNS`, and what was rejected."""
        if rejected:
            lines = [json.dumps(asdict(one)) + "\n" for one in rejected]
            file = self.path / "rejected" / f"part-{index:08d}.jsonl"
            write_atomically(file, [line.encode("utf-8") for line in lines])
        write_atomically(self.part(index), [table_bytes(rows, COLUMNS)])

    def totals(self) -> tuple[int, int, int]:
        """Memories, their tokens and their slots; the memories themselves are not read."""
        documents = tokens = slots = 0
        for part in sorted((self.path / "parts").glob("part-*.parquet")):
            for row in read_row_range(part, 0, row_count(part), columns=("tokens", "slots")):
                documents += 1
                tokens += row["tokens"]
                slots += row["slots"]
        return documents, tokens, slots

    def rejected(self) -> list[Rejected]:
        """Every rejected document, in the order of the input."""
        found = []
        for file in sorted((self.path / "rejected").glob("part-*.jsonl")):
            for line in file.read_text(encoding="utf-8").splitlines():
                found.append(Rejected(**json.loads(line)))
        return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
