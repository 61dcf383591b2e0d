"""From a question to a small memory: the best passages of a store that fit a budget."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from icae.errors import InputError, StoreError
from icae.memory import Memory, Provenance, merge
from icae.store.records import SearchHit
from icae.store.sqlite import MemoryStore

DEFAULT_BUDGET = 512
"""Most decoder positions of the passages of a store, where nothing is said."""

MOST_HITS = 256
"""Most passages that are considered for one question."""

LOWEST_SHARE = 0.1
"""Passages that score less than this share of the best one are left out: what they have
in common with the question are words that every text has."""


class Retrieved(NamedTuple):
    """What a store has for a question.

    Attributes:
        memory: The passages as one memory: documents in order of their best passage,
            each with its passages in the order of the text.
        citations: What the memory is made of, in the same order: of passages that follow each
            other one, with score and snippet of the best.
    """

    memory: Memory
    citations: list[SearchHit]


def retrieve(
    store: MemoryStore, question: str, *, budget: int, made_by: Provenance | None = None
) -> Retrieved:
    """Make a memory of the passages that match a question best.

    Passages are taken in order of their score, down to a tenth of the best one's, as long
    as they fit into `budget` decoder positions; one that does not fit any more is left out,
    and shorter ones may follow. Without `made_by`, those found have to fit each other.

    Raises:
        InputError: If the question has no word, or the budget is too small for a passage.
        StoreError: If nothing was found, or the store cannot be read.
        IncompatibleMemoryError: If memories of different models were found.
    """
    hits = store.search(question, limit=MOST_HITS, made_by=made_by)
    if not hits:
        raise _nothing_found(store, question, made_by)
    chosen = _fitting(hits, budget)
    if not chosen:
        raise InputError(
            "The budget is too small for any passage that was found.",
            got=f"{budget} decoder positions",
            expected=f"at least {min(hit.positions for hit in hits)}",
            fix="Give a larger --budget.",
        )
    by_memory: dict[str, list[SearchHit]] = {}  # in the order of their best hit
    for hit in chosen:
        by_memory.setdefault(hit.key, []).append(hit)
    memories, citations = [], []
    for key, own in by_memory.items():
        own.sort(key=lambda hit: hit.span_first)
        spans = [i for hit in own for i in range(hit.span_first, hit.span_end)]
        memories.append(store.load(key).select(spans))
        citations += _citations(own)
    return Retrieved(merge(memories), citations)


def retrieve_readable(
    store: MemoryStore, question: str, *, budget: int, readable: Sequence[Provenance]
) -> Retrieved:
    """Passages of the first provenance that has some, as `retrieve`; two are never mixed."""
    for made_by in readable[:-1]:
        with suppress(StoreError):
            return retrieve(store, question, budget=budget, made_by=made_by)
    return retrieve(store, question, budget=budget, made_by=readable[-1])


def _fitting(hits: Sequence[SearchHit], budget: int) -> list[SearchHit]:
    """The best hits that fit a budget together."""
    chosen, left = [], budget
    lowest = LOWEST_SHARE * hits[0].score
    for hit in hits:
        if hit.positions <= left and hit.score >= lowest:
            chosen.append(hit)
            left -= hit.positions
    return chosen


def _citations(hits: Sequence[SearchHit]) -> list[SearchHit]:
    """One citation for each run of hits that follow each other in a document."""
    runs: list[SearchHit] = []
    for hit in hits:
        last = runs[-1] if runs else None
        if last and (last.document_index, last.span_end) == (hit.document_index, hit.span_first):
            best = max(last, hit, key=lambda one: one.score)
            runs[-1] = replace(
                best,
                span_first=last.span_first,
                span_end=hit.span_end,
                char_start=last.char_start,
                char_end=hit.char_end,
                positions=last.positions + hit.positions,
                text=last.text + hit.text,
            )
        else:
            runs.append(hit)
    return runs


def _nothing_found(store: MemoryStore, question: str, made_by: Provenance | None) -> StoreError:
    """The error for no hit; whether other models' memories have one decides the advice."""
    others = store.search(question, limit=1) if made_by is not None else []
    if others:
        made = store.get(others[0].key).provenance
        return StoreError(
            f"Nothing in {store.location} that the loaded adapter can read matches the question.",
            got=f"matches made by adapter {made.adapter} on {made.base_model}",
            expected="memories made by the loaded adapter",
            fix="Load that adapter with --adapter, or compress them again: `icae upgrade --store`.",
        )
    return StoreError(
        f"Nothing in {store.location} matches the question.",
        got=f"no passage with a word of {question[:80]!r}",
        fix="Ask with words that the documents use; see `icae store search`.",
    )
