"""Two results side by side: every figure, its difference, and whether they may be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icae.errors import InputError
from icae.evals.bootstrap import Figure, mean_figure
from icae.evals.results import SCHEMA
from icae.evals.tables import Row, Table, columns_of

MEANINGS = {
    "measure": ("schema", "data", "seed", "settings"),
    "model": ("adapter", "base", "tokenizer", "dtype"),
    "making": ("icae", "commit", "hardware", "complete"),
}
"""Meaning of a difference in the heads -> keys: what must be equal for a difference to be one
between the models; what two results are usually compared for; what should not matter."""

KEYS = (
    "dataset",
    "length",
    "ratio",
    "text",
    "kind",
    "series",
    "reader",
    "step",
    "batch",
    "spans",
)
"""What tells rows of a result apart."""

COLUMNS = columns_of(
    "row figure first second change interval clear paired",
    first="A",
    second="B",
    change="B - A",
    interval="95 % interval",
    clear="",
    paired="interval of",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two results side by side.

    Attributes:
        experiment: Its name.
        mismatches: What differs in their making: ``key``, what ``first`` and ``second`` say in
            words, and its ``meaning``, of `MEANINGS`.
        differences: Figures that both have: ``row`` (key -> value), ``figure`` (its key),
            ``first``, ``second``, ``change`` (second less first), whether its interval is of
            ``paired`` differences of the same contexts, and whether it leaves out 0 (``clear``).
        missing: Rows of the first that the second lacks, and the reverse, in words.
    """

    experiment: str
    mismatches: Sequence[Row]
    differences: Sequence[Row]
    missing: Sequence[str]

    @property
    def comparable(self) -> bool:
        """Whether both are the same measurement."""
        return not any(m["meaning"] == "measure" for m in self.mismatches)

    def table(self) -> Table:
        """The differences for people."""
        rows: list[Row] = [
            {
                "row": ", ".join(f"{key} {value}" for key, value in d["row"].items()),
                "figure": d["figure"],
                "first": f"{d['first']['value']:.4g}",
                "second": f"{d['second']['value']:.4g}",
                "change": f"{d['change']['value']:+.4g}",
                "interval": f"[{d['change']['low']:+.4g}, {d['change']['high']:+.4g}]",
                "clear": "*" if d["clear"] else "",
                "paired": "pairs" if d["paired"] else "both",
            }
            for d in self.differences
        ]
        return Table(rows=rows, columns=COLUMNS)


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file of `icae eval`.

    Raises:
        InputError: If it cannot be read or is something else.
    """
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(payload["experiment"], str) or not isinstance(payload["rows"], list):
            raise TypeError
    except OSError as error:
        raise InputError(
            "The result cannot be read.", got=f"{path}: {error.strerror}", expected="a JSON file"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no result of icae eval.",
            expected="a JSON file with experiment and rows",
        ) from error
    return dict(payload)


def compare(
    first: Mapping[str, Any], second: Mapping[str, Any], *, only: Sequence[str] | None = None
) -> Comparison:
    """Set two results of one experiment side by side.

    Args:
        first: A result as in its JSON file.
        second: Another.
        only: Keys of the figures wanted; None: all that both have.

    Returns:
        What differs in their making, and the figures. Where both measured the same contexts,
        the interval of a change is a bootstrap of the paired differences; else it joins the two
        intervals as if they were independent and symmetric.

    Raises:
        InputError: If they are of different experiments, or have none of the wanted figures.
    """
    if first["experiment"] != second["experiment"]:
        raise InputError(
            "Results of different experiments have nothing to compare.",
            got=f"{first['experiment']} and {second['experiment']}",
            expected="two results of one experiment",
        )
    mismatches = _mismatches(first, second)
    paired = not any(m["meaning"] == "measure" for m in mismatches)
    others = {_place(row): row for row in second["rows"]}
    differences = [
        difference
        for row in first["rows"]
        if _place(row) in others
        for difference in _row_differences(
            row, others[_place(row)], paired=paired, seed=int(first.get("seed", 0))
        )
        if only is None or difference["figure"] in only
    ]
    figures = dict.fromkeys(key for row in first["rows"] for key in row if _figure(row[key]))
    unknown = [name for name in only or () if name not in figures]
    if unknown:
        raise InputError(
            "The results have no such figure.",
            got=", ".join(unknown),
            expected=", ".join(figures) or "none: the results have no figures",
        )
    return Comparison(
        experiment=str(first["experiment"]),
        mismatches=mismatches,
        differences=differences,
        missing=_missing(first["rows"], second["rows"]),
    )


def _mismatches(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    found: list[Row] = [
        {
            "key": key,
            "first": _in_words(first.get(key)),
            "second": _in_words(second.get(key)),
            "meaning": meaning,
        }
        for meaning, keys in MEANINGS.items()
        for key in keys
        if first.get(key) != second.get(key)
    ]
    if first.get("schema") == second.get("schema") != SCHEMA:
        known = f"{SCHEMA} is what this version knows"
        said = _in_words(first.get("schema"))
        found.append({"key": "schema", "first": said, "second": known, "meaning": "measure"})
    return found


def _in_words(value: Any) -> str:
    """A value of a result's head for people; hashes are cut."""
    if value is None:
        return "not recorded"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(_in_words, value))
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _place(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in KEYS)


def _row_differences(row: Row, other: Row, *, paired: bool, seed: int) -> list[Row]:
    found: list[Row] = []
    for key, value in row.items():
        mine, yours = _figure(value), _figure(other.get(key))
        if mine is None or yours is None:
            continue
        values = [list(_single(r).get(key) or ()) for r in (row, other)]
        pairs = paired and all(values) and len(values[0]) == len(values[1])
        # Only a mean of its contexts can be paired: a corpus BLEU or a ratio of sums is none.
        pairs = pairs and all(
            math.isclose(float(np.mean(v)), figure["value"], rel_tol=1e-6, abs_tol=1e-9)
            for v, figure in zip(values, (mine, yours), strict=True)
        )
        if pairs:
            changes = np.subtract(values[1], values[0])
            change = mean_figure(changes, groups=_single(row).get("group"), seed=seed)
        else:
            change = _independent(mine, yours)
        found.append(
            {
                "row": {k: row[k] for k in KEYS if row.get(k) is not None and k != "series"},
                "figure": key,
                "first": mine,
                "second": yours,
                "change": change,
                "paired": pairs,
                "clear": change["low"] > 0 or change["high"] < 0,
            }
        )
    return found


def _independent(first: Figure, second: Figure) -> Figure:
    """The change between independent figures: half-widths add in squares, side by side."""
    value = second["value"] - first["value"]
    down = math.hypot(second["value"] - second["low"], first["high"] - first["value"])
    up = math.hypot(second["high"] - second["value"], first["value"] - first["low"])
    return Figure(value=value, low=value - down, high=value + up)


def _single(row: Row) -> Mapping[str, Any]:
    """The figures of single contexts or questions behind those of a row."""
    return dict(row.get("per_context") or row.get("per_question") or {})


def _figure(value: Any) -> Figure | None:
    """A figure with its interval, or None for any other value of a row."""
    if not isinstance(value, Mapping) or set(value) != {"value", "low", "high"}:
        return None
    return Figure(value=value["value"], low=value["low"], high=value["high"])


def _missing(first: Sequence[Row], second: Sequence[Row]) -> list[str]:
    here, there = {_place(r) for r in first}, {_place(r) for r in second}
    return [
        f"only in {name}: "
        + ", ".join(f"{key} {row[key]}" for key in KEYS if row.get(key) is not None)
        for name, rows, others in (("A", first, there), ("B", second, here))
        for row in rows
        if _place(row) not in others
    ]
