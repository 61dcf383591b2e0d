"""The report of the whole suite: one HTML page that stands alone, Markdown, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icae.evals.metadata import file_hash
from icae.evals.pages import STYLE
from icae.evals.run import Finished
from icae.evals.tables import made_by
from icae.memory.html_page import escaped, html_page

_STYLE = """\
h2{border-top:1px solid #d8d8e0;padding-top:1.2rem}
h2 a{color:inherit;text-decoration:none}
.q{font-size:15px;color:#333;margin-top:-.4rem}
.skip{color:#7a4a00}
td.w{white-space:normal}
"""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One experiment in the report.

    Attributes:
        name: Name of the experiment and of its files.
        question: What it answers.
        finished: Its result, or None if it was skipped.
        reason: Why it was skipped; empty if it was not.
    """

    name: str
    question: str
    finished: Finished | None
    reason: str = ""

    @property
    def took(self) -> float | None:
        """Seconds of measuring, in all runs; None if it was skipped."""
        return None if self.finished is None else float(self.finished.payload["seconds"])


def html_report(head: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """The report as one page: plots are data URIs.

    Args:
        head: What made it.
        parts: Every experiment, in order.
    """
    body = [_html_summary(parts)]
    for part in parts:
        body.append(f'<h2 id="{escaped(part.name)}">{escaped(part.name)}</h2>\n')
        body.append(f'<p class="q">{escaped(part.question)}</p>\n')
        if part.finished is None:
            body.append(f'<p class="skip">Skipped: {escaped(part.reason)}.</p>\n')
        else:
            body.append(part.finished.section)
    body.append("<h2>How this report was made</h2>\n")
    body += [f'<p class="made">{escaped(line.strip("`"))}</p>\n' for line in made_by(head) if line]
    return html_page(body, title=str(head["title"]), style=STYLE + _STYLE)


def _html_summary(parts: Sequence[Part]) -> str:
    lines = []
    for part in parts:
        name = escaped(part.name)
        status = "done" if part.finished is not None else f"skipped: {part.reason}"
        lines.append(
            f'<tr><td class="w"><a href="#{name}">{name}</a></td>'
            f'<td class="w">{escaped(part.question)}</td>'
            f'<td class="w">{escaped(status)}</td><td>{_seconds(part)}</td></tr>\n'
        )
    titles = '<th class="w">experiment</th><th class="w">question</th><th class="w">status</th>'
    return f"<table><tr>{titles}<th>seconds</th></tr>\n{''.join(lines)}</table>\n"


def _seconds(part: Part) -> str:
    return "-" if part.took is None else f"{part.took:.0f}"


def markdown_report(head: Mapping[str, Any], parts: Sequence[Part], folder: Path) -> str:
    """The report as Markdown; pictures lie beside it.

    Args:
        head: What made it.
        parts: Every experiment, in order.
        folder: Where the Markdown file of each result lies.
    """
    lines = [f"# {head['title']}", "", "| experiment | question | status | seconds |"]
    lines.append("|---|---|---|---:|")
    for part in parts:
        status = "done" if part.finished is not None else f"skipped: {part.reason}"
        cells = (part.name, part.question, status, _seconds(part))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines.append("")
    for part in parts:
        if part.finished is None:
            lines += [f"## {part.name}", "", f"Skipped: {part.reason}.", ""]
        else:
            page = (folder / f"{part.name}.md").read_text(encoding="utf-8")
            lines += ["#" + line if line.startswith("#") else line for line in page.splitlines()]
            lines.append("")
    lines += ["## How this report was made", "", *made_by(head), ""]
    return "\n".join(lines)


def json_report(head: Mapping[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """The report as a JSON object: the tables' figures; single contexts stay in the results.

    Args:
        head: What made it.
        parts: Every experiment, in order.
    """
    return {**head, "parts": [_json_part(part) for part in parts]}


def _json_part(part: Part) -> dict[str, Any]:
    finished = part.finished
    named = {"name": part.name, "question": part.question}
    if finished is None:
        return {**named, "status": "skipped", "reason": part.reason}
    tables = []
    for table in finished.tables:
        keys = [column.key for column in table.columns]
        rows = [{key: row[key] for key in keys if row.get(key) is not None} for row in table.rows]
        tables.append({"title": table.title, "rows": rows})
    result = finished.files[0]
    return {
        **named,
        "status": "done",
        "seconds": part.took,
        "settings": finished.payload["settings"],
        "seed": finished.payload["seed"],
        "file": result.name,
        "sha256": file_hash(result),
        "tables": tables,
    }
