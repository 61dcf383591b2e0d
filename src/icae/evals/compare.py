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
from icae.evals.experiment import Row
from icae.evals.metrics import Estimate, grouped_mean_estimate
from icae.evals.report import SCHEMA

SAME_MEASURE = ("schema", "data", "seed", "settings")
"""What must be equal for a difference to be one between the models."""

SAME_MODEL = ("adapter", "base", "tokenizer", "dtype")
"""What two results are usually compared for."""

SAME_MAKING = ("icae", "commit", "hardware", "complete")
"""What should not matter, but may."""

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


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """Something that differs between two results.

    Attributes:
        key: Its key in the files.
        first: What the first file says, in words.
        second: What the second says.
        meaning: ``measure``, ``model`` or ``making``; see `SAME_MEASURE` and the others.
    """

    key: str
    first: str
    second: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure in both results.

    Attributes:
        row: What tells the row apart: key -> value.
        figure: Key of the figure.
        first: In the first result.
        second: In the second.
        change: Second less first, with its interval.
        paired: Whether the interval is of differences of the same contexts.
    """

    row: Mapping[str, Any]
    figure: str
    first: Estimate
    second: Estimate
    change: Estimate
    paired: bool

    @property
    def clear(self) -> bool:
        """Whether the interval of the change leaves out 0."""
        return self.change.low > 0 or self.change.high < 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two results side by side.

    Attributes:
        experiment: Its name.
        mismatches: What differs in their making.
        differences: Figures that both have.
        missing: Rows of the first that the second lacks, and the reverse, in words.
    """

    experiment: str
    mismatches: tuple[Mismatch, ...]
    differences: tuple[Difference, ...]
    missing: tuple[str, ...]


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


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """Set two results of one experiment side by side.

    Args:
        first: A result as in its JSON file.
        second: Another.

    Returns:
        What differs in their making, and every figure that both have. Where both measured the
        same contexts, the interval of a change is a bootstrap of the paired differences;
        else it joins the two intervals as if they were independent and symmetric.

    Raises:
        InputError: If they are of different experiments.
    """
    if first["experiment"] != second["experiment"]:
        raise InputError(
            "Results of different experiments have nothing to compare.",
            got=f"{first['experiment']} and {second['experiment']}",
            expected="two results of one experiment",
        )
    mismatches = tuple(_mismatches(first, second))
    paired = not any(m.meaning == "measure" for m in mismatches)
    seed = int(first.get("seed", 0))
    others = {_place(row): row for row in second["rows"]}
    differences: list[Difference] = []
    for row in first["rows"]:
        other = others.get(_place(row))
        if other is not None:
            differences += _row_differences(row, other, paired=paired, seed=seed)
    return Comparison(
        experiment=str(first["experiment"]),
        mismatches=mismatches,
        differences=tuple(differences),
        missing=tuple(_missing(first["rows"], second["rows"])),
    )


def _mismatches(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Mismatch]:
    groups = (("measure", SAME_MEASURE), ("model", SAME_MODEL), ("making", SAME_MAKING))
    found = [
        Mismatch(
            key=key,
            first=_in_words(first.get(key)),
            second=_in_words(second.get(key)),
            meaning=meaning,
        )
        for meaning, keys in groups
        for key in keys
        if first.get(key) != second.get(key)
    ]
    if first.get("schema") == second.get("schema") != SCHEMA:
        known = Mismatch(
            key="schema",
            first=_in_words(first.get("schema")),
            second=f"{SCHEMA} is what this version knows",
            meaning="measure",
        )
        found.append(known)
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


def _row_differences(row: Row, other: Row, *, paired: bool, seed: int) -> list[Difference]:
    found = []
    for key, value in row.items():
        mine, yours = _estimate(value), _estimate(other.get(key))
        if mine is None or yours is None:
            continue
        values = [list(_single(r).get(key) or ()) for r in (row, other)]
        pairs = paired and all(values) and len(values[0]) == len(values[1])
        # Only a mean of its contexts can be paired: a corpus BLEU or a ratio of sums is none.
        pairs = pairs and all(
            math.isclose(float(np.mean(v)), e.value, rel_tol=1e-6, abs_tol=1e-9)
            for v, e in zip(values, (mine, yours), strict=True)
        )
        if pairs:
            groups = _single(row).get("group", range(len(values[0])))
            changes = np.subtract(values[1], values[0])
            change = grouped_mean_estimate(changes, list(groups), seed=seed)
        else:
            change = _independent(mine, yours)
        found.append(
            Difference(
                row={k: row[k] for k in KEYS if row.get(k) is not None and k != "series"},
                figure=key,
                first=mine,
                second=yours,
                change=change,
                paired=pairs,
            )
        )
    return found


def _independent(first: Estimate, second: Estimate) -> Estimate:
    """The change between independent figures: half-widths add in squares, side by side."""
    value = second.value - first.value
    down = math.hypot(second.value - second.low, first.high - first.value)
    up = math.hypot(second.high - second.value, first.value - first.low)
    return Estimate(value=value, low=value - down, high=value + up)


def _single(row: Row) -> Mapping[str, Any]:
    """The figures of single contexts or questions behind those of a row."""
    return dict(row.get("per_context") or row.get("per_question") or {})


def _estimate(value: Any) -> Estimate | None:
    """A figure with its interval, or None for any other value of a row."""
    if not isinstance(value, Mapping) or set(value) != {"value", "low", "high"}:
        return None
    return Estimate(value=value["value"], low=value["low"], high=value["high"])


def _missing(first: Sequence[Row], second: Sequence[Row]) -> list[str]:
    here, there = {_place(r) for r in first}, {_place(r) for r in second}
    return [
        f"only in {name}: {_row_name(row)}"
        for name, rows, others in (("A", first, there), ("B", second, here))
        for row in rows
        if _place(row) not in others
    ]


def _row_name(row: Row) -> str:
    return ", ".join(f"{key} {row[key]}" for key in KEYS if row.get(key) is not None)
