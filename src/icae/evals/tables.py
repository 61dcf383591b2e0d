"""Rows as text: cells of a table, and the Markdown page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icae.evals.experiment import Column, Row


def cell_text(value: Any, digits: int) -> str:
    """A value for people: ``2.350 [2.210, 2.490]`` for a figure with its interval."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        low, high = value["low"], value["high"]
        return f"{value['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def short_cell_text(value: Any, digits: int) -> str:
    """The same with half the width of the interval: ``2.350 ±0.140``."""
    if isinstance(value, Mapping):
        half = (value["high"] - value["low"]) / 2
        return f"{value['value']:.{digits}f} ±{half:.{digits}f}"
    return cell_text(value, digits)


def table_texts(
    rows: Sequence[Row],
    columns: Sequence[Column],
    *,
    show: Callable[[Any, int], str] = cell_text,
) -> list[list[str]]:
    """The rows as texts; a key that a row lacks is a dash.

    Args:
        rows: Rows of a result.
        columns: Columns of its table.
        show: Turns a value and a number of digits into text.
    """
    return [[show(row.get(c.key), c.digits) for c in columns] for row in rows]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows and the columns that are shown of them.

    Attributes:
        rows: The rows.
        columns: The columns; one that no row has is left out.
        title: Headline, or None.
    """

    rows: Sequence[Row]
    columns: Sequence[Column]
    title: str | None = None

    @property
    def filled(self) -> list[Column]:
        """The columns that some row has."""
        return [c for c in self.columns if any(row.get(c.key) is not None for row in self.rows)]


def markdown(head: Mapping[str, Any], tables: Sequence[Table], notes: Sequence[str]) -> str:
    """The Markdown page of a result.

    Args:
        head: What made it.
        tables: Its tables.
        notes: How to read them.
    """
    lines = [f"# {head['title']}", "", f"![{head['title']}]({head['experiment']}.png)", ""]
    lines += markdown_tables(tables)
    lines += [f"- {note}" for note in notes]
    lines.append(f"- Figures in brackets: {head['intervals']}.")
    lines += ["", *made_by(head), ""]
    return "\n".join(lines)


def markdown_tables(tables: Sequence[Table]) -> list[str]:
    """Tables as lines of Markdown, each with its headline and a blank line behind it."""
    lines = []
    for table in tables:
        if table.title is not None:
            lines += [f"## {table.title}", ""]
        lines.append("| " + " | ".join(c.title for c in table.filled) + " |")
        lines.append("|" + "---:|" * len(table.filled))
        rows = table_texts(table.rows, table.filled)
        lines += ["| " + " | ".join(texts) + " |" for texts in rows]
        lines.append("")
    return lines


def made_by(head: Mapping[str, Any]) -> list[str]:
    """The command of a result, and code, model, data and machine behind it, as lines."""
    data = ", ".join(f"{d['file']} ({(d['sha256'] or 'unhashed')[:12]})" for d in head["data"])
    adapter, base = head["adapter"], head["base"]
    return [
        f"`{head['command']}`",
        "",
        f"icae {head['icae']}, commit {head['commit'] or 'unknown'}; "
        f"adapter {adapter['name']} ({adapter['hash'][:12]}) "
        f"on {base['name']} ({base['hash'][:12]}), {head['dtype']}; seed {head['seed']}; "
        f"texts {data}; {head['hardware']}.",
    ]
