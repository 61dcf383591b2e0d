"""What each slot holds of a text, as HTML: the text once for each slot, shaded."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from icae.evals.experiment import Row
from icae.memory.html_page import escaped

LARGEST = 8192
"""Most shaded tokens of one example; a longer context is left to the picture."""

_LINE = (
    "font:13px/1.9 ui-monospace,monospace;white-space:pre-wrap;margin:.1rem 0;"
    "padding-left:5ch;text-indent:-5ch"
)
_OWN = "border-bottom:2px solid #1b1b1f"


def slot_texts(rows: Sequence[Row]) -> str:
    """The example contexts of every row.

    Args:
        rows: Rows of `icae.evals.slots`.

    Returns:
        HTML; a token is the redder the more log-probability it loses without that slot.
    """
    parts = [
        "<h3>Examples</h3>\n<p>Each line is one slot replaced by the mean slot: red tokens "
        "become less likely, blue ones more; the slot's own chunk is underlined. Full colour "
        "is a change of 4 nats or more.</p>\n"
    ]
    for row in rows:
        for number, example in enumerate(row["examples"], start=1):
            parts.append(f"<h4>{escaped(row['series'])}, context {number}</h4>\n")
            parts.append(_example(example))
    return "".join(parts)


def _example(example: Mapping[str, Any]) -> str:
    if len(example["drops"]) * len(example["tokens"]) > LARGEST:
        return f"<p>{escaped(''.join(example['tokens']))}</p>\n"
    lines = (
        f'<div style="{_LINE}"><b>{slot:>3}</b>  {_shaded(example, slot, drops)}</div>\n'
        for slot, drops in enumerate(example["drops"])
    )
    return "".join(lines)


def _shaded(example: Mapping[str, Any], slot: int, drops: Sequence[float]) -> str:
    """The tokens of one line."""
    parts = []
    for token, own, drop in zip(example["tokens"], example["own"], drops, strict=True):
        styles = [f"background:{_colour(drop)}", *([_OWN] if own == slot else [])]
        text = escaped(token.replace("\n", "\N{RETURN SYMBOL}"))
        title = html.escape(f"{drop:+.2f} nats")
        parts.append(f'<span style="{";".join(styles)}" title="{title}">{text}</span>')
    return "".join(parts)


def _colour(drop: float) -> str:
    """Red for a loss, blue for a gain, opaque from 4 nats."""
    strength = round(min(1.0, abs(drop) / 4) * 0.8, 3)
    return f"rgba(214,47,39,{strength})" if drop > 0 else f"rgba(44,101,176,{strength})"
