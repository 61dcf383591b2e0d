"""Everybody who can answer with an engine alone: names, and who stands behind each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

from icae.compression.adaptive import FidelityPolicy
from icae.compression.refinement import RefineConfig
from icae.engine import Engine
from icae.errors import MissingDependencyError
from icae.evals.held import slot_hold
from icae.evals.peers import (
    best_chunks,
    by_key_norm,
    by_last_tokens,
    by_question,
    by_recency,
    pruned,
)
from icae.evals.respondents import (
    Respondent,
    after_reading,
    by_memory,
    by_text,
    first_tokens,
    lost_words,
    others,
    own_summary,
    refined,
    searched,
    span_hold,
    whole_text,
    within_budget,
)
from icae.evals.rival_llmlingua import llmlingua

MEMORY, FULL, UPPER = "memory", "full context", "upper bound"
OTHER, NOTHING, FIRST, SUMMARY = "other memory", "no context", "first tokens", "own summary"
REFINED, ADAPTIVE, NOTED = "refined memory", "adaptive memory", "memory with note"
VERBATIM, SEARCHED, FAITHFUL = "verbatim memory", "store search", "faithful memory"
CHUNKS, WINDOW, NORM = "best chunks", "sliding window", "key norm"
SNAP, SNAP_ASKED, LINGUA = "SnapKV", "SnapKV with question", "LLMLingua"

ANY_RATIO = (FULL, NOTHING, VERBATIM, FAITHFUL, UPPER)
"""Who reads the same at every ratio; the others read as many positions as the memory takes."""
PEERS = (FIRST, SUMMARY, CHUNKS, WINDOW, NORM, SNAP, SNAP_ASKED, LINGUA)
"""Other ways to as many positions: nothing is trained for them."""
PEERS_NOTE = (
    "Peers, each with as many positions as the memory takes: its slots, and those that the adapter "
    "places before every memory (lead slots). Best chunks: those of at most 64 "
    "tokens that match the question best (BM25). Sliding window, key norm, SnapKV: the decoder's "
    "own cache of the whole context, of which each layer and head keeps the first 4 and the last "
    "places, those of the lowest key norm, or those that the last 32 tokens attend to; SnapKV with "
    "question: those that the question attends to, chosen for every question anew. What a cache "
    "keeps stays at its place in the text, and so does the question behind it. LLMLingua: the "
    "text less the tokens that the decoder finds likely, without the question."
)


def respondents(
    engine: Engine,
    names: Collection[str],
    *,
    refine: RefineConfig | None = None,
    min_fidelity: float = 1.0,
) -> tuple[dict[str, Respondent], tuple[str, ...]]:
    """Who answers, by name, in one order; and notes on those whose package is not installed.

    Args:
        engine: Adapter and base model.
        names: Who is wanted.
        refine: How the refined memory is made.
        min_fidelity: Fidelity that every span of the faithful memory must reach.

    Raises:
        InputError: If the cache of this base model cannot be pruned.
    """
    slots, policy = slot_hold(engine), FidelityPolicy(min_fidelity=min_fidelity)
    faithful = span_hold(
        engine, lambda cut, ratio: [engine.adaptive.choose(own, policy=policy) for own in cut]
    )
    text, memory, cache = (partial(made, engine) for made in (by_text, by_memory, pruned))
    known: Mapping[str, Callable[[], Respondent]] = {
        MEMORY: lambda: memory(slots),
        FULL: lambda: text(whole_text),
        NOTHING: lambda: text(lambda questions, ratio: [""] * len(questions)),
        FIRST: lambda: text(first_tokens(engine)),
        SUMMARY: lambda: after_reading(text(own_summary(engine))),
        OTHER: lambda: memory(slots, whose=others),
        REFINED: lambda: memory(refined(engine, refine or RefineConfig())),
        ADAPTIVE: lambda: memory(within_budget(engine)),
        FAITHFUL: lambda: memory(faithful),
        NOTED: lambda: memory(slots, note=lost_words(engine)),
        VERBATIM: lambda: memory(span_hold(engine, lambda cut, ratio: cut)),
        SEARCHED: lambda: searched(engine),
        CHUNKS: lambda: text(best_chunks(engine)),
        WINDOW: lambda: cache(by_recency),
        NORM: lambda: cache(by_key_norm),
        SNAP: lambda: cache(by_last_tokens),
        SNAP_ASKED: lambda: cache(by_question, each_question=True),
        LINGUA: lambda: after_reading(text(llmlingua(engine))),
    }
    found: dict[str, Respondent] = {}
    notes: list[str] = []
    for name in (name for name in known if name in names):
        try:
            found[name] = known[name]()
        except MissingDependencyError as error:
            notes.append(f"Not measured: {name}. {error.message} {error.fix or ''}".strip())
    return found, tuple(notes)
