"""The memory against every other reader, question by question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from icae.evals.experiment import Column, Row, plain
from icae.evals.metrics import grouped_mean_estimate, grouped_ratio_estimate

DIFFERENCES = ("f1", "rougeL", "loss", "accuracy", "empty", "repeating", "unterminated")
"""Figures of which the difference (memory minus the other) is taken."""

COMPARED = (
    Column(title="data set", key="dataset"),
    Column(title="ratio", key="ratio"),
    Column(title="memory minus", key="kind"),
    Column(title="F1", key="f1", digits=3),
    Column(title="F1, memory / other", key="f1_ratio", digits=2),
    Column(title="ROUGE-L", key="rougeL", digits=3),
    Column(title="loss (nats/token)", key="loss", digits=3),
    Column(title="choice accuracy", key="accuracy", digits=3),
    Column(title="empty", key="empty", digits=3),
    Column(title="repeating", key="repeating", digits=3),
    Column(title="unterminated", key="unterminated", digits=3),
)


def compare_readers(rows: Sequence[Row], *, memory: str, seed: int) -> list[Row]:
    """One row for each data set, ratio and other reader, with paired intervals over contexts.

    Args:
        rows: The measured rows; each has its values by question.
        memory: The kind of the rows that are compared with the others.
        seed: Seed of the bootstrap.
    """
    result = []
    for own in rows:
        if own["kind"] != memory:
            continue
        others = [
            row
            for row in rows
            if row["dataset"] == own["dataset"]
            and row["kind"] != memory
            and row["ratio"] in (None, own["ratio"])
        ]
        result += [_difference(own, other, seed) for other in others]
    return result


def _difference(own: Row, other: Row, seed: int) -> Row:
    mine, theirs = own["per_question"], other["per_question"]
    groups = mine["group"]
    row: Row = {"dataset": own["dataset"], "ratio": own["ratio"], "kind": other["kind"]}
    for name in DIFFERENCES:
        if name in mine and name in theirs:
            gaps = np.asarray(mine[name]) - np.asarray(theirs[name])
            row[name] = plain(grouped_mean_estimate(gaps, groups, seed=seed))
    ratio = grouped_ratio_estimate(mine["f1"], theirs["f1"], groups, seed=seed)
    row["f1_ratio"] = None if ratio is None else plain(ratio)
    return row
