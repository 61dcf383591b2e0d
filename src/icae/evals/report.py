"""The report of the whole suite: one HTML page that stands alone, Markdown, JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icae.data.rows import file_hash
from icae.evals.experiment import Opening
from icae.evals.results import Finished, ResultFiles, made_by
from icae.evals.tables import Row, Table, columns_of
from icae.memory.html_page import escaped, html_page

STYLE = """\
body{max-width:74rem}
img{max-width:100%;height:auto}
.scroll{overflow-x:auto}
table.t th{vertical-align:bottom;padding:.15rem .5rem;max-width:7rem}
table.t td{padding:.15rem .5rem}
.notes{font-size:13px;color:#444}
.made{font:12px/1.5 ui-monospace,monospace;color:#555;overflow-wrap:anywhere}
h2{border-top:1px solid #d8d8e0;padding-top:1.2rem}
.q{font-size:15px;color:#333;margin-top:-.4rem}
.skip{color:#7a4a00}
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


def write_report(
    head: Mapping[str, Any], parts: Sequence[Part], folder: Path
) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Write ``report.html``, ``.md`` and ``.json``.

    Returns:
        The JSON object, which holds the tables' figures but not those of single contexts; and
        the files.

    Raises:
        InputError: If one cannot be written.
    """
    files = ResultFiles(folder=folder, name="report")
    payload = {**head, "parts": [_json_part(part) for part in parts]}
    html = files.write(".html", _html(head, parts).encode("utf-8", "replace"))
    text = files.write(".md", _markdown(head, parts, folder).encode("utf-8", "replace"))
    data = json.dumps(payload, indent=1, allow_nan=False) + "\n"
    return payload, (html, text, files.write(".json", data.encode()))


def _summary(parts: Sequence[Part]) -> Table:
    """What became of every experiment."""
    rows: list[Row] = [
        {
            "experiment": part.name,
            "question": part.question,
            "status": "done" if part.finished else f"skipped: {part.reason}",
            "seconds": "-" if part.took is None else f"{part.took:.0f}",
        }
        for part in parts
    ]
    return Table(rows, columns_of("experiment question status seconds"))


def _html(head: Mapping[str, Any], parts: Sequence[Part]) -> str:
    body = [_figure(*opened) for opened in _opened(parts)]
    body.append(f"<h2>Every experiment</h2>\n{_summary(parts).html()}")
    for part in parts:
        body.append(f'<h2 id="{escaped(part.name)}">{escaped(part.name)}</h2>\n')
        body.append(f'<p class="q">{escaped(part.question)}</p>\n')
        if part.finished is None:
            body.append(f'<p class="skip">Skipped: {escaped(part.reason)}.</p>\n')
        else:
            body.append(_section(part.finished))
    body.append(f"<h2>How this report was made</h2>\n{_made(head)}")
    return html_page(body, title=str(head["title"]), style=STYLE)


def _opened(parts: Sequence[Part]) -> list[tuple[Opening, str, bytes]]:
    """What the report opens with, what it comes to, and the pictures."""
    done = [part.finished for part in parts if part.finished]
    return [
        (one.opening[0], str(one.payload.get("verdict", "")), one.opening[1])
        for one in done
        if one.opening
    ]


def _section(finished: Finished) -> str:
    """A result: its picture stands in the page itself."""
    head = finished.payload
    picture = _image(str(head["title"]), finished.picture)
    verdict = f"<p>{escaped(head['verdict'])}</p>\n" if head.get("verdict") else ""
    tables = "".join(table.html() for table in finished.tables)
    notes = "".join(f"<li>{escaped(note)}</li>" for note in finished.notes)
    return f'{verdict}<p>{picture}</p>\n{tables}<ul class="notes">{notes}</ul>{_made(head)}'


def _figure(opening: Opening, verdict: str, picture: bytes) -> str:
    """A picture that the report opens with, below its headline and what is seen on it."""
    text = f"<p>{escaped(opening.text)}</p>\n" + (f"<p>{escaped(verdict)}</p>\n" if verdict else "")
    return f"<h2>{escaped(opening.title)}</h2>\n{text}{_image(opening.title, picture)}\n"


def _image(title: str, picture: bytes) -> str:
    data = base64.b64encode(picture).decode()
    return f'<img alt="{escaped(title)}" src="data:image/png;base64,{data}">'


def _made(head: Mapping[str, Any]) -> str:
    return f'<p class="made">{escaped(head["command"])}<br>{escaped(made_by(head))}</p>\n'


def _markdown(head: Mapping[str, Any], parts: Sequence[Part], folder: Path) -> str:
    lines = [f"# {head['title']}", ""]
    for opening, verdict, _ in _opened(parts):
        picture = f"![{opening.title}]({opening.name}.png)"
        lines += [f"## {opening.title}", "", f"{opening.text} {verdict}".strip(), "", picture, ""]
    lines += ["## Every experiment", "", _summary(parts).markdown()]
    for part in parts:
        if part.finished is None:
            lines += [f"## {part.name}", "", f"Skipped: {part.reason}."]
        else:
            page = (folder / f"{part.name}.md").read_text(encoding="utf-8")
            lines += ["#" + line if line.startswith("#") else line for line in page.splitlines()]
        lines.append("")
    made = [f"`{head['command']}`", "", made_by(head), ""]
    return "\n".join([*lines, "## How this report was made", "", *made])


def _json_part(part: Part) -> dict[str, Any]:
    finished = part.finished
    named = {"name": part.name, "question": part.question}
    if finished is None:
        return {**named, "status": "skipped", "reason": part.reason}
    return {
        **named,
        "status": "done",
        "seconds": part.took,
        "settings": finished.payload["settings"],
        "seed": finished.payload["seed"],
        "file": finished.files[0].name,
        "sha256": file_hash(finished.files[0]),
        "tables": [{"title": t.title, "rows": t.figures()} for t in finished.tables],
    }
