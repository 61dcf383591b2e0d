from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from icae.memory import Memory, Provenance, Segment, TokenFidelity, memory_of_segments
from icae.memory.fidelity_html import fidelity_page

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
    ids = np.arange(len(text))
    cut = len(text) - verbatim
    segments = [
        Segment.of_slots(ids[:cut], np.ones((2, 3), np.float32), ratio=4, token_fidelity=fidelity)
    ]
    if verbatim:
        segments.append(Segment.of_tokens(ids[cut:], hidden_size=3))
    return memory_of_segments(
        segments, text=text, offsets=range(len(text)), name="<b>.txt", provenance=provenance
    )


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
    spans = tuple(
        span if span.kind == "tokens" else replace(span, fidelity=None) for span in mixed.spans
    )
    bare = replace(mixed, spans=spans, token_fidelity=None)
    page = page_of(bare)
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
