"""Pages that stand alone: no script, no external resource, everything escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

# Control characters cannot stand in HTML, and marks of direction could reorder the page.
_CONTROLS = (*range(9), 11, 12, *range(14, 32), *range(127, 160))
_DIRECTIONS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SURROGATES = range(0xD800, 0xE000)
_UNSAFE = dict.fromkeys((*_CONTROLS, *_DIRECTIONS, *_SURROGATES), "\N{REPLACEMENT CHARACTER}")

BASE_STYLE = """\
:root{color-scheme:light}
body{font:15px/1.65 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1b1b1f;background:#fff}
h1{font-size:1.3rem}h2{font-size:1.1rem;margin-top:2.5rem}
table{border-collapse:collapse;font-size:13px;margin:.8rem 0}
td,th{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #e4e4ea}
td.w,th.w{text-align:left}
details{margin:.8rem 0}
"""
"""Type, colours and tables."""


def escaped(text: str) -> str:
    """A text as it may stand in HTML, also in an attribute in double quotes."""
    return html.escape(text.translate(_UNSAFE))


def html_page(parts: Iterable[str], *, title: str, style: str = "") -> str:
    """A whole page: headline, body in HTML, and CSS behind `BASE_STYLE`.

    Pictures in it may only be data URIs, and nothing else is loaded or run.
    """
    head = [
        "<!DOCTYPE html>\n",
        '<html lang="und"><head><meta charset="utf-8">\n',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n",
        '<meta name="viewport" content="width=device-width">\n',
        f"<title>{escaped(title)}</title>\n<style>{BASE_STYLE}{style}</style></head><body>\n",
        f"<h1>{escaped(title)}</h1>\n",
    ]
    return "".join([*head, *parts, "</body></html>\n"])
