"""Markdown pages from frames: Jinja templates that lie beside the module that fills them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined


def fill(frame: Path, **values: object) -> str:
    """Fill a frame; a section that comes out blank goes, and sections stand a line apart.

    Besides the values it has ``table(head, rows)`` for a Markdown table and the filter
    ``grouped`` for a number grouped by thousands.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["grouped"] = "{:,}".format
    template = environment.from_string(frame.read_text(encoding="utf-8"))
    sections = template.render(**values, table=_table).split("\n\n")
    return "\n\n".join(filter(None, (section.strip("\n") for section in sections))) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """A Markdown table of plain cells; numbers are grouped by thousands."""
    cells = [[one if isinstance(one, str) else f"{one:,}" for one in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
