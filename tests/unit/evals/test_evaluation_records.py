"""Every experiment of the suite records what made it, and gives every figure an interval."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from icae.evals.metadata import data_hashes
from icae.evals.registry import EXPERIMENTS

HEAD = (
    "schema",
    "experiment",
    "icae",
    "commit",
    "adapter",
    "base",
    "tokenizer",
    "dtype",
    "data",
    "seed",
    "settings",
    "intervals",
    "hardware",
    "command",
)
SMALL = {"slots", "memorisation", "continuation", "multi-span", "random-text"}
EXACT = {
    *("length", "ratio", "kind", "text", "series", "slots", "positions", "samples", "spans"),
    *("chance", "threshold", "greedy_samples", "examples", "drops", "tails", "tail_losses"),
    "per_context",
}
"""Keys of rows that are no estimates: what is measured, and the single values behind figures."""


@pytest.mark.parametrize("kind", [e for e in EXPERIMENTS if e.name in SMALL], ids=lambda e: e.name)
def test_a_result_records_its_making_and_intervals(run: Any, corpus: Any, kind: Any) -> None:
    settings = kind.quick(16)
    smaller = {"samples": 2} | ({"greedy": 1} if hasattr(settings, "greedy") else {})
    smaller |= {"examples": 1} if hasattr(settings, "examples") else {}
    payload = run(replace(settings, **smaller)).payload
    for key in HEAD:
        assert payload[key] is not None or key == "commit"
    assert payload["data"] == data_hashes([corpus])
    assert all(len(record["sha256"]) == 64 for record in payload["data"])
    for row in payload["rows"]:
        for key, value in row.items():
            if key not in EXACT and value is not None:
                assert set(value) == {"value", "low", "high"}, key
                assert value["low"] <= value["value"] <= value["high"], key
