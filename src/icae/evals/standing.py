"""How the memory stands beside its peers, in words: the first paragraph of a result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icae.evals.readers import FULL, MEMORY, PEERS
from icae.evals.tables import Row


def standing(rows: Sequence[Row], key: str, title: str, *, by_dataset: bool) -> str:
    """Who is ahead of the memory at each ratio, and whom it is ahead of.

    Args:
        rows: Rows of a result, with their ``kind`` and ``ratio``.
        key: Key of a figure of which more is better.
        title: What it is.
        by_dataset: Set by set, else their mean.

    Returns:
        One sentence for each ratio (and data set); nothing where no peer was measured.
    """
    sets = dict.fromkeys(row["dataset"] if by_dataset else None for row in rows)
    said = []
    for dataset in sets:
        own = [row for row in rows if dataset in (None, row["dataset"])]
        for ratio in dict.fromkeys(r["ratio"] for r in own if r["kind"] == MEMORY):
            values = {name: _mean(own, key, name, ratio) for name in PEERS}
            there = {name: value for name, value in values.items() if value is not None}
            memory, full = _mean(own, key, MEMORY, ratio), _mean(own, key, FULL, None)
            if there and memory is not None:
                place = f"{ratio:g}x" if dataset is None else f"{dataset}, {ratio:g}x"
                whole = "" if full is None else f" The full context: {full:.3f}."
                said.append(f"{place}: {_sentence(memory, there, title)}{whole}")
    return " ".join(said)


def _mean(rows: Sequence[Row], key: str, kind: str, ratio: float | None) -> float | None:
    found = [row[key]["value"] for row in rows if row["kind"] == kind and row["ratio"] == ratio]
    return round(float(np.mean(found)), 3) if found else None


def _sentence(memory: float, peers: dict[str, float], title: str) -> str:
    order = sorted(peers, key=lambda name: -peers[name])
    groups = {
        "loses to": [name for name in order if peers[name] > memory],
        "is level with": [name for name in order if peers[name] == memory],
        "is ahead of": [name for name in order if peers[name] < memory],
    }
    parts = [
        f"{verb} " + ", ".join(f"{name} ({peers[name]:.3f})" for name in names)
        for verb, names in groups.items()
        if names
    ]
    return f"at as many positions the memory ({title} {memory:.3f}) {', '.join(parts)}."
