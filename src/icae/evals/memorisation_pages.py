"""Source and what was written back, side by side, errors in the colour of their class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icae.evals.experiment import Row
from icae.evals.panels import COLOURS
from icae.evals.word_errors import CLASSES
from icae.memory.html_page import escaped

_CELL = "vertical-align:top;text-align:left;width:50%;white-space:normal;padding:.5rem 1rem"


def side_by_side(rows: Sequence[Row]) -> str:
    """The example contexts of every row.

    Args:
        rows: Rows of `icae.evals.memorisation`.

    Returns:
        HTML: left the source, right what was written.
    """
    key = " ".join(_mark(error, error) for error in CLASSES)
    parts = [f"<h3>Examples</h3>\n<p>Left the source, right what was written. {key}</p>\n"]
    for row in rows:
        if row["examples"]:
            parts.append(f"<h4>{escaped(row['series'])}</h4>\n<table>\n")
            parts += [_example(example["pairs"]) for example in row["examples"]]
            parts.append("</table>\n")
    return "".join(parts)


def _example(pairs: Sequence[Sequence[Any]]) -> str:
    left = " ".join(_mark(error, true) for error, true, _ in pairs if true)
    right = " ".join(_mark(error, written) for error, _, written in pairs if written)
    return f'<tr><td style="{_CELL}">{left}</td><td style="{_CELL}">{right}</td></tr>\n'


def _mark(error: str | None, word: str) -> str:
    if error is None:
        return escaped(word)
    # The same colours as in the plot, light enough to read on.
    colour = COLOURS[CLASSES.index(error) % len(COLOURS)]
    style = f"background:{colour}38;border-bottom:2px solid {colour}"
    return f'<span style="{style}" title="{error}">{escaped(word)}</span>'
