"""The document of benchmarks/mixed_document.py and how it counts what came back."""

from __future__ import annotations

from typing import Any

import pytest

from icae.compression.adaptive import FidelityPolicy

PROSE = "The lamp turned in the rain over other men. " * 4


@pytest.fixture(scope="module")
def script(benchmark_script: Any) -> Any:
    return benchmark_script("mixed_document")


def test_document_is_drawn_by_seed_and_its_parts_tile_it(script: Any) -> None:
    document = script.build(PROSE, figures=200, uuids=50, seed=1)
    assert document == script.build(PROSE, figures=200, uuids=50, seed=1)
    assert document.figures != script.build(PROSE, figures=200, uuids=50, seed=2).figures
    assert (len(document.figures), len(set(document.uuids))) == (200, 50)
    kinds = [part.kind for part in document.parts]
    assert kinds == ["prose", "figures", "uuids", "code", "korean", "prose"]
    at = 0
    for part in document.parts:
        assert part.char_start == at
        at = part.char_end
    assert at == len(document.text)
    assert script.came_back(document.figures, document.text) == 200
    assert script.came_back(document.uuids, document.text) == 50


def test_what_is_lost_or_changed_does_not_count_as_back(script: Any) -> None:
    assert script.came_back(["12.50", "7.25", "12.50"], "12.50 | 7.26 | 12.50") == 2
    assert script.came_back(["a", "b"], "") == 0


def test_strict_fidelity_keeps_the_whole_document(script: Any, engine: Any) -> None:
    document = script.build(PROSE, figures=5, uuids=1, seed=0)
    found = script.measure(engine, document, FidelityPolicy(min_fidelity=0.99, ratios=(4.0,)))
    assert found["whole_text_exact"]
    assert (found["figures"], found["uuids"]) == ([5, 5], [1, 1])
    assert found["spans_exact"] == found["spans"]
    assert sum(row["tokens"] for row in found["kinds"].values()) == found["tokens"]
    assert sum(row["positions"] for row in found["kinds"].values()) == found["positions"]
