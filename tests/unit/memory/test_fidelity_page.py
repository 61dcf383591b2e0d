from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from icae.memory import Embeddings, Memory, MemoryDocument, Provenance, Span, TokenFidelity
from icae.memory.fidelity_page import fidelity_page
from word_memories import with_spans

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Elements with their classes, and the text of what is shaded."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.shaded: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append((tag, str(dict(attrs).get("class"))))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if any(name == "text" for _, name in self.open):
            self.text.append(data)
            self.shaded.append((self.open[-1][1], data))


def make(provenance: Provenance, text: str, lost: set[int], verbatim: int = 0) -> Memory:
    """A character is a token; the last `verbatim` ones are kept as they are."""
    reproduced = np.array([i not in lost for i in range(len(text) - verbatim)])
    fidelity = TokenFidelity(
        reproduced=reproduced, confidence=np.where(reproduced, 230, 20).astype(np.uint8)
    )
    cut = len(text) - verbatim
    first = Span(
        token_start=0,
        token_end=cut,
        char_start=0,
        char_end=cut,
        payload=Embeddings(slots_KD=np.ones((2, 3), np.float32)),
        ratio=4,
        fidelity=fidelity.share,
        token_fidelity=fidelity,
    )
    ids = np.arange(cut, len(text))
    spans = [first]
    if verbatim:
        spans.append(Span.verbatim(ids, token_start=cut, char_start=cut, char_end=len(text)))
    document = MemoryDocument.of_text(text, spans, name="<b>.txt", token_ids_sha256=None)
    return Memory(documents=(document,), provenance=provenance)


def page_of(memory: Memory) -> str:
    return fidelity_page(memory, [range(d.tokens) for d in memory.documents], title="a & b")


def test_page_shows_the_whole_text_and_stands_alone(mixed: Memory) -> None:
    page = page_of(mixed)
    assert "".join(Page(page).text) == "abcdefghijKLMNOP"
    assert not re.search(r"https?:|src=|href=|url\(|@import|<script|<link", page)
    assert "default-src 'none'" in page


def test_markup_in_text_and_names_is_escaped(provenance: Provenance) -> None:
    text = "<script>alert('1')</script> & \x00\u202e\n"
    parsed = Page(page_of(make(provenance, text, set())))
    assert "script" not in parsed.tags
    assert "b" not in parsed.tags
    shown = text.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    assert "".join(parsed.text) == shown


def test_lost_tokens_stand_out_and_those_in_numbers_are_underlined(
    provenance: Provenance,
) -> None:
    text = "we paid 1200 to someone"
    parsed = Page(page_of(make(provenance, text, {1, 9})))
    looks = {data: name for name, data in parsed.shaded}
    assert looks["w"] == "c9"
    assert looks["e"] == "c0 l"
    assert looks["2"] == "c0 l u"
    assert "1 numbers, names or pieces of code" in page_of(make(provenance, text, {1, 9}))


def test_verbatim_text_is_told_from_compressed_text(provenance: Provenance) -> None:
    parsed = Page(page_of(make(provenance, "abcdefgh", {0}, verbatim=3)))
    assert parsed.shaded == [("c0 l", "a"), ("c9", "bcde"), ("v", "fgh")]


def test_spans_are_listed_with_what_they_take(mixed: Memory) -> None:
    page = page_of(mixed)
    assert page.count("<tr><td>") == 1 + len(mixed.spans)
    assert "verbatim</td><td>100.0 %" in page
    assert "slots, 2x</td>" in page


def test_unmeasured_text_is_grey_and_says_so(mixed: Memory) -> None:
    spans = [
        span if span.kind == "tokens" else replace(span, fidelity=None, token_fidelity=None)
        for span in mixed.spans
    ]
    page = page_of(with_spans(mixed, spans))
    assert {name for name, _ in Page(page).shaded} == {"v", "n"}
    assert "whole spans only" in page


def test_unknown_places_shade_whole_spans(build: Callable[..., Memory]) -> None:
    memory = build("abcdef", "s4 t2")
    page = fidelity_page(memory, [None], title="x")
    assert [data for _, data in Page(page).shaded] == ["abcd", "ef"]


def test_text_that_was_not_kept_is_refused(mixed: Memory) -> None:
    from icae.errors import InputError

    with pytest.raises(InputError, match="no source text"):
        page_of(mixed.without_source())
