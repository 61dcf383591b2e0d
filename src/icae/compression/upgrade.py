"""Memories of another adapter, compressed again from the text that they keep."""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from icae.compression.compressor import Compressor, OnProgress, TokenizedText, verbatim_spans
from icae.config import ModelConfig
from icae.memory import Memory, MemoryDocument, Span, merge

Wanted = tuple[float | None, bool]
"""How a stretch of text is to be held: its ratio, None for verbatim; whether it is measured."""


def upgraded(
    compressor: Compressor, memory: Memory, *, on_progress: OnProgress = lambda done, total: None
) -> Memory:
    """The same documents, compressed by another adapter.

    The text is tokenized and cut anew. Every stretch of it keeps its ratio, or stays verbatim, and
    is measured where it was. Steps of refinement are not taken again.

    Args:
        compressor: Compresses.
        memory: The memory, of any adapter and base model.
        on_progress: Called with (spans done, spans in all).

    Raises:
        InputError: If the text of a document was not kept.
    """
    texts = [compressor.tokenize(document.require_source()) for document in memory.documents]
    parts = [
        list(_cut(document, text, config=compressor.config))
        for document, text in zip(memory.documents, texts, strict=True)
    ]
    alike: dict[Wanted, list[Span]] = defaultdict(list)
    for wanted, span in itertools.chain(*parts):
        alike[wanted].append(span)
    total, done = sum(map(len, parts)), 0
    made: dict[Wanted, Iterator[Span]] = {}
    for (ratio, verify), spans in alike.items():
        if ratio is not None:
            show = functools.partial(lambda before, now, _: on_progress(before + now, total), done)
            spans = compressor.encode(spans, ratio=ratio, verify=verify, on_progress=show)
        made[ratio, verify] = iter(spans)
        done += len(spans)
    memories = []
    for document, text, own in zip(memory.documents, texts, parts, strict=True):
        one = compressor.memory(text, [next(made[wanted]) for wanted, _ in own], name=document.name)
        asked = any(verify for (_, verify), _ in own)
        memories.append(compressor.with_recall(one, {0: text.ids}) if asked else one)
    return merge(memories)


def _wanted(span: Span) -> Wanted:
    if span.kind == "tokens":
        return None, False
    return span.ratio, span.fidelity is not None


def _cut(
    document: MemoryDocument, text: TokenizedText, *, config: ModelConfig
) -> Iterator[tuple[Wanted, Span]]:
    """Verbatim spans of a text, and how each is to be held: as it is in the document."""
    runs = [list(own) for _, own in itertools.groupby(document.spans, key=_wanted)]
    starts = [0, *(bisect_left(text.offsets, own[0].char_start) for own in runs[1:])]
    edges = [0, *text.offsets[1:], len(text.text)]
    for own, (first, end) in zip(runs, itertools.pairwise([*starts, len(text.ids)]), strict=True):
        if first == end:
            continue
        ids, ends = text.ids[first:end], edges[first : end + 1]
        for span in verbatim_spans(ids, config, edges=ends):
            yield _wanted(own[0]), span.moved(tokens=first, chars=0)
