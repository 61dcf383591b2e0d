"""The benchmark of conversations that compact themselves, on a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from icae.compression import folding
from icae.engine import Engine


def test_each_way_leads_the_same_conversation_and_leaves_the_library_as_it_was(
    build_engine: Callable[..., Engine], benchmark_script: Callable[[str], Any]
) -> None:
    script = benchmark_script("chat_compaction")
    engine = build_engine(memory="key-values", framing="between", objective_tokens=2)
    facts = [
        script.Fact(
            said="The tin is thin.",
            replied="So it is.",
            question="Is it?",
            lead="The tin is",
            answer="thin",
            others=["near"],
        )
    ]
    turns = [(facts[0].said, facts[0].replied), *((f"Why {n}?", "near") for n in range(3))]
    script.KEEP_TURNS = 1
    own = (folding._in_cache, folding.Cached.moved_up)
    options = script.parser().parse_args(["--every", "3", "--older-positions", "40"])
    full, moved, text = script.in_every_way(
        engine, turns, facts, options, ["full", "moved", "from text"]
    )
    assert (folding._in_cache, folding.Cached.moved_up) == own
    assert [len(told.positions) for told in (full, moved, text)] == [4, 4, 4]
    assert full.compactions == []
    assert [made.turn for made in moved.compactions] == [3, 4]
    assert moved.compactions[0].full_seconds is not None
    assert moved.positions[-1] < full.positions[-1]
    assert moved.older_slots[-1] > 0
    assert all(told.facts[0].loss > 0 for told in (full, moved, text))
    assert script.line(moved).startswith("| moved | ")
