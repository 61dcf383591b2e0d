"""Tables of PDFs: the cells of a row on one line, apart by `` | ``, as those of HTML are.

A PDF knows no tables, only where letters stand. Two readings of a page are compared: in reading
order, where cells run into each other, and as it looks, where columns show but prose in two
columns is garbled. A row is what stands in columns in the one and follows each other in the
other; the order is that of reading, and prose stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_CELL = re.compile(r"\S+(?: {1,2}\S+)*")
"""Words closer to each other than three spaces."""

_MARKER = re.compile(r"\W*|\w{1,2}[.)]")
"""What stands before an item of a list, which is no cell."""

_NEAR = 1
"""Letters by which starts or ends of cells of one column may differ."""


class _Cell(NamedTuple):
    start: int
    end: int
    text: str

    def off(self, other: _Cell) -> int:
        """How far it is from standing in the column of another."""
        return min(abs(self.start - other.start), abs(self.end - other.end))


def with_rows(read: str, looks: str) -> str:
    """A page in reading order (`read`), its table rows as they stand where it `looks` so."""
    made, at = [], 0
    for table in _tables(looks):
        columns = max(table, key=len)
        for row in table:
            between = r"\s+".join(r"\s+".join(map(re.escape, c.text.split())) for c in row)
            found = re.compile(rf"^[^\S\n]*{between}(?!\S)", re.MULTILINE).search(read, at)
            if found is not None:
                made += [read[at : found.start()], _line(row, columns)]
                at = found.end()
    return "".join([*made, read[at:]])


def _tables(looks: str) -> Iterator[list[list[_Cell]]]:
    """Neighbouring lines of several cells, each with half the columns of the line before."""
    table: list[list[_Cell]] = []
    for line in filter(str.strip, [*looks.splitlines(), "the end"]):
        cells = [_Cell(hit.start(), hit.end(), hit[0]) for hit in _CELL.finditer(line)]
        is_row = len(cells) > 1 and not _MARKER.fullmatch(cells[0].text)
        if table and not (is_row and _aligned(cells, table[-1])):
            if len(table) > 1:
                yield table
            table = []
        if is_row:
            table.append(cells)


def _aligned(row: Sequence[_Cell], before: Sequence[_Cell]) -> bool:
    """Whether half of the columns go on, at least one: words of prose stand so by chance, too."""
    found = sum(any(cell.off(other) <= _NEAR for other in before[1:]) for cell in row[1:])
    return 2 * found >= max(min(len(row), len(before)) - 1, 1)


def _line(row: Sequence[_Cell], columns: Sequence[_Cell]) -> str:
    """A row with an empty cell where one of the columns has none."""
    texts = [""] * len(columns)
    free = 0
    for behind, cell in zip(reversed(range(len(row))), row, strict=True):
        left = range(free, len(columns) - behind)
        column = min(left, key=lambda one: cell.off(columns[one]))
        texts[column], free = " ".join(cell.text.split()), column + 1
    return " | ".join(texts).rstrip()
