"""Rows as tables of text: on the terminal, in Markdown and in HTML.

A row is one line of a result: plain values, ready for JSON. A table picks columns of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icae.memory.html_page import escaped

Row = dict[str, Any]
"""Plain values; figures with intervals are `icae.evals.bootstrap.Figure`s."""


TITLES = {
    "dataset": "data set",
    "ae_loss": "AE loss (nats/token)",
    "loss": "loss (nats/token)",
    "accuracy": "token accuracy",
    "bleu": "greedy BLEU-4",
    "bleu_median": "median BLEU-4",
    "prefix_share": "exact prefix",
    "over_full": "perplexity / full",
    "raw_equal": "equal to raw tokens",
    "gain": "raw tokens a position",
    "locality": "own chunk",
    "chance": "own chunk, evenly spread",
    "near": "own or next chunk",
    "own_drop": "nats lost, own chunk",
    "other_drop": "nats lost, other chunks",
    "f1": "F1",
    "f1_ratio": "F1, memory / other",
    "em": "EM",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "ae_accuracy": "AE accuracy",
    "context_positions": "context tokens in the decoder",
    "kv_mb": "KV cache (MB)",
    "peak_mb": "peak (MB)",
    "compress": "of it compressing",
    "decode_rate": "decode (tokens/s)",
    "speedup": "speed-up over full",
    "samples": "contexts",
    "right": "words right",
    "number_right": "numbers right",
    "name_right": "names right",
    "positions_share": "positions per context token",
    "best_accuracy": "best so far",
    "full_loss": "behind full context",
    "bare_loss": "behind no context",
    "margin": "win - lose",
    "failed": "no reply",
    "quarter_1": "right in quarter 1",
    "quarter_2": "right in quarter 2",
    "quarter_3": "right in quarter 3",
    "quarter_4": "right in quarter 4",
}
"""Key of the rows -> title of its column, where that is not the key with spaces."""

DIGITS = dict.fromkeys(("perplexity", "gain", "f1_ratio", "speedup"), 2) | dict.fromkeys(
    ("bleu", "bleu_median", "raw_equal", "decode_rate", "answer_tokens"), 1
)
DIGITS |= dict.fromkeys(("form", "number", "name", "code", "other", "omission", "insertion"), 1)
"""Key -> digits shown of a figure, where that is not 3."""


Columns = Mapping[str, str]
"""Key of the rows -> title of its column, in order."""


def columns_of(keys: str, **titles: str) -> dict[str, str]:
    """Columns by the keys of the rows, with spaces between them; some under other titles."""
    named = TITLES | titles
    return {key: named.get(key, key.replace("_", " ")) for key in keys.split()}


@dataclass(frozen=True)
class Table:
    """Rows and the columns that are shown of them.

    Attributes:
        rows: The rows.
        columns: The columns; one that no row has is left out.
        title: Headline, or None.
    """

    rows: Sequence[Row]
    columns: Columns
    title: str | None = None

    @property
    def filled(self) -> dict[str, str]:
        """The columns that some row has."""
        there = {key for row in self.rows for key in row if row[key] is not None}
        return {key: title for key, title in self.columns.items() if key in there}

    def texts(self, *, short: bool = False) -> list[list[str]]:
        """The rows as texts, one for each filled column; a key that a row lacks is a dash.

        Args:
            short: Show half the width of an interval in place of its ends.
        """
        digits = {key: DIGITS.get(key, 3) for key in self.filled}
        return [[_text(row.get(key), n, short) for key, n in digits.items()] for row in self.rows]

    def figures(self) -> list[Row]:
        """The shown values of each row, without those it lacks."""
        return [{k: row[k] for k in self.columns if row.get(k) is not None} for row in self.rows]

    def markdown(self) -> str:
        """The table in Markdown, below its headline."""
        head = "" if self.title is None else f"## {self.title}\n\n"
        lines = [list(self.filled.values()), *self.texts()]
        safe = [[text.replace("|", "\\|") for text in texts] for texts in lines]
        rows = ["| " + " | ".join(texts) + " |\n" for texts in safe]
        return "".join([head, rows[0], "|" + "---:|" * len(self.filled) + "\n", *rows[1:]])

    def html(self) -> str:
        """The table in HTML, below its headline; a wide one scrolls within the page."""
        import pandas as pd

        head = "" if self.title is None else f"<h3>{escaped(self.title)}</h3>\n"
        frame = pd.DataFrame(self.texts(), columns=list(self.filled.values()))
        safe = frame.map(escaped).rename(columns=escaped)
        with pd.option_context("display.max_colwidth", None):
            table = safe.to_html(index=False, escape=False, border=0, classes="t", justify="unset")
        return f'{head}<div class="scroll">{table}</div>\n'


def _text(value: Any, digits: int, short: bool) -> str:
    """A value for people: ``2.350 [2.210, 2.490]`` for a figure, ``2.350 ±0.140`` if short."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        low, high = value["low"], value["high"]
        if short:
            return f"{value['value']:.{digits}f} ±{(high - low) / 2:.{digits}f}"
        return f"{value['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
