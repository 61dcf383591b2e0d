"""Two results side by side: every figure, its difference, and whether they may be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icae.errors import InputError
from icae.evals.bootstrap import Figure, mean_figure
from icae.evals.metadata import SCHEMA
from icae.evals.tables import Row

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

ROUNDED = 5.1e-6
"""How far the mean of single values may be from the figure: they are kept with five digits."""

HEADINGS = ("figure", "A", "B", "B - A", "95 % interval", "verdict")


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
) -> dict[str, Any]:
    """Set two results of one experiment side by side.

    Args:
        first: A result as in its JSON file.
        second: Another.
        only: Keys of the figures wanted; None: all that both have.

    Returns:
        ``experiment``: its name. ``comparable``: whether both are the same measurement.
        ``mismatches``: what differs in their making: ``key``, what ``first`` and ``second`` say
        in words, and its ``meaning``, of `MEANINGS`. ``differences``: figures that both have:
        ``row`` (key -> value), ``figure`` (its key), ``first``, ``second``, ``change`` (second
        less first), whether its interval is of ``paired`` differences of the same contexts (else
        it joins the two intervals as if they were independent), and whether it leaves out 0
        (``clear``). A plain number, such as seconds, is there where it changed, with no interval
        (``single``). ``missing``: rows that only one has, in words.

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
    comparable = not any(m["meaning"] == "measure" for m in mismatches)
    here, there = ({_place(row): row for row in one["rows"]} for one in (first, second))
    _require_known(first["rows"], only or ())
    seed = int(first.get("seed", 0))
    differences = [
        _difference(row, there[place], key, paired=comparable, seed=seed)
        for place, row in here.items()
        for key in row
        if place in there and _comparable(key, row[key], there[place].get(key))
        if only is None or key in only
    ]
    return {
        "experiment": str(first["experiment"]),
        "comparable": comparable,
        "mismatches": mismatches,
        "differences": differences,
        "missing": [*_only_in("A", here, there), *_only_in("B", there, here)],
    }


def _require_known(rows: Sequence[Row], wanted: Sequence[str]) -> None:
    """Refuse figures that no row has."""
    known = dict.fromkeys(key for row in rows for key in row if _is_measured(key, row[key]))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            "The results have no such figure.",
            got=", ".join(unknown),
            expected=", ".join(known) or "none: the results have no figures",
        )


def _only_in(name: str, rows: Mapping[Any, Row], others: Mapping[Any, Row]) -> list[str]:
    return [f"only in {name}: {_said(_named(rows[own]))}" for own in rows if own not in others]


def _said(named: Row) -> str:
    """What tells a row apart, as text."""
    pairs = named.items()
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in pairs)


def lines(differences: Sequence[Row]) -> list[str]:
    """The differences for people: what tells a row apart, below it a line for each figure.

    An interval that joins the two, as if they were independent, begins with ``~``.
    """
    cells = [HEADINGS, *map(_cells, differences)]
    first, *widths = (max(map(len, column)) for column in zip(*cells, strict=True))
    heads, *texts = (
        "  ".join([name.ljust(first), *map(str.rjust, own, widths)]) for name, *own in cells
    )
    shown, row = [f"  {heads}"], None
    for difference, text in zip(differences, texts, strict=True):
        if difference["row"] != row:
            row = difference["row"]
            shown.append(_said(row))
        shown.append(f"  {text}")
    return shown


def _cells(difference: Row) -> tuple[str, ...]:
    """The texts below `HEADINGS` of one figure."""
    first, second, change = (difference[key] for key in ("first", "second", "change"))
    ends, verdict = "-", "-"
    if not difference["single"]:
        joined = "" if difference["paired"] else "~"
        ends = f"{joined}[{change['low']:+.3g}, {change['high']:+.3g}]"
        verdict = "unclear"
        if difference["clear"]:
            verdict = "higher" if change["low"] > 0 else "lower"
    values = f"{first['value']:.4g}", f"{second['value']:.4g}", f"{change['value']:+.3g}"
    return difference["figure"], *values, ends, verdict


def _mismatches(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    found: list[Row] = []
    for meaning, keys in MEANINGS.items():
        for key in keys:
            pair = _apart(first.get(key), second.get(key))
            if pair[0] != pair[1]:
                words = dict(zip(("first", "second"), map(_in_words, pair), strict=True))
                found.append({"key": key, **words, "meaning": meaning})
    if first.get("schema") == second.get("schema") != SCHEMA:
        known = f"{SCHEMA} is what this version knows"
        said = _in_words(first.get("schema"))
        found.append({"key": "schema", "first": said, "second": known, "meaning": "measure"})
    return found


def _apart(first: Any, second: Any) -> tuple[Any, Any]:
    """Two values; of two mappings what differs, nothing for what one lacks."""
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return first, second
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    one, other = ({key: own.get(key) for key in keys} for own in (first, second))
    return one, other


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


def _named(row: Row) -> Row:
    """What tells a row apart for people: no length of 0, nothing said twice."""
    named = {key: row[key] for key in KEYS if row.get(key) not in (None, 0) and key != "series"}
    if named.get("reader") == named.get("kind"):
        named.pop("reader", None)
    return named


def _is_number(key: str, value: Any) -> bool:
    """Whether a value of a row is a plain number that was measured."""
    return isinstance(value, int | float) and not isinstance(value, bool) and key not in KEYS


def _is_figure(value: Any) -> bool:
    """Whether a value of a row is a figure with its interval."""
    return isinstance(value, Mapping) and set(value) == {"value", "low", "high"}


def _is_measured(key: str, value: Any) -> bool:
    return _is_figure(value) or _is_number(key, value)


def _comparable(key: str, first: Any, second: Any) -> bool:
    """Whether both are figures, or numbers that differ."""
    if _is_number(key, first) and _is_number(key, second):
        return bool(first != second)
    return _is_figure(first) and _is_figure(second)


def _single(value: float) -> Figure:
    """A plain number as a figure without an interval."""
    return Figure(value=value, low=value, high=value)


def _difference(row: Row, other: Row, key: str, *, paired: bool, seed: int) -> Row:
    mine, yours = row[key], other[key]
    named = {"row": _named(row), "figure": key}
    if not _is_figure(mine):
        own = {"first": _single(mine), "second": _single(yours), "change": _single(yours - mine)}
        return {**named, **own, "paired": False, "clear": False, "single": True}
    singles = [dict(r.get("per_context") or r.get("per_question") or {}) for r in (row, other)]
    values = [single.get(key) or [] for single in singles]
    # Only a mean of its contexts can be paired: a corpus BLEU or a ratio of sums is none.
    pairs = (
        paired
        and len(values[0]) == len(values[1]) > 0
        and all(
            math.isclose(float(np.mean(own)), figure["value"], rel_tol=1e-6, abs_tol=ROUNDED)
            for own, figure in zip(values, (mine, yours), strict=True)
        )
    )
    if pairs:
        changes = np.subtract(values[1], values[0])
        change = mean_figure(changes, groups=singles[0].get("group"), seed=seed)
    else:
        change = _independent(mine, yours)
    return {
        **named,
        "first": mine,
        "second": yours,
        "change": change,
        "paired": pairs,
        "clear": change["low"] > 0 or change["high"] < 0,
        "single": False,
    }


def _independent(first: Figure, second: Figure) -> Figure:
    """The change between independent figures: half-widths add in squares, side by side."""
    value = second["value"] - first["value"]
    down = math.hypot(second["value"] - second["low"], first["high"] - first["value"])
    up = math.hypot(second["high"] - second["value"], first["value"] - first["low"])
    return Figure(value=value, low=value - down, high=value + up)
