"""A result as HTML: its picture, its table, how to read it, and what no table can say."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from icae.evals.tables import Table, made_by, table_texts
from icae.memory.html_page import escaped, html_page

STYLE = """\
body{max-width:74rem}
img{max-width:100%;height:auto}
.scroll{overflow-x:auto}
table.t th{vertical-align:bottom}
table.t td{white-space:nowrap;padding:.15rem .5rem}
table.t th{padding:.15rem .5rem;max-width:7rem}
.notes{font-size:13px;color:#444}
.made{font:12px/1.5 ui-monospace,monospace;color:#555;overflow-wrap:anywhere}
"""
"""CSS of result pages; exhibits add their own in a style attribute or by these classes."""


def result_page(section: str, *, title: str) -> str:
    """The HTML page of one result.

    Args:
        section: From `result_section`.
        title: Its headline, plain text.
    """
    return html_page([section], title=title, style=STYLE)


def result_section(
    head: Mapping[str, Any],
    tables: Sequence[Table],
    notes: Sequence[str],
    *,
    picture: bytes,
    shown: Sequence[str],
) -> str:
    """A result as a piece of HTML, without its headline.

    Args:
        head: What made it.
        tables: Its tables.
        notes: How to read them.
        picture: Its plots, a PNG file.
        shown: HTML of its exhibits.
    """
    parts = [data_image(picture, str(head["title"]))]
    for table in tables:
        parts += [] if table.title is None else [f"<h3>{escaped(table.title)}</h3>\n"]
        lines = table_texts(table.rows, table.filled)
        parts.append(html_table([c.title for c in table.filled], lines))
    said = [*notes, f"Figures in brackets: {head['intervals']}."]
    items = "".join(f"<li>{escaped(note)}</li>" for note in said)
    made = "<br>".join(escaped(line.strip("`")) for line in made_by(head) if line)
    notes_html = f'<ul class="notes">{items}</ul>'
    return "".join([*parts, *shown, notes_html, f'<p class="made">{made}</p>\n'])


def data_image(picture: bytes, title: str) -> str:
    """A PNG file as an image that stands in the page itself."""
    data = base64.b64encode(picture).decode()
    return f'<p><img alt="{escaped(title)}" src="data:image/png;base64,{data}"></p>\n'


def html_table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; a wide one scrolls within the page."""
    head = "".join(f"<th>{escaped(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(text)}</td>" for text in texts) + "</tr>\n"
        for texts in lines
    )
    return f'<div class="scroll"><table class="t"><tr>{head}</tr>\n{body}</table></div>\n'
