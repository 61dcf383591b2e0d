from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from icae.memory import Memory, TokenFidelity
from icae.memory.fidelity_page import fidelity_html, fidelity_page
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


@pytest.fixture
def make(build):
    """``make(text, lost, plan)``: a character is a token, those at `lost` are lost."""

    def make(text: str, lost: set[int], plan: str | None = None) -> Memory:
        memory = build(text, plan or f"s{len(text)}", name="<b>.txt")
        first, *rest = memory.spans
        reproduced = np.array([i not in lost for i in range(first.tokens)])
        fidelity = TokenFidelity(
            reproduced=reproduced, confidence=np.where(reproduced, 230, 20).astype(np.uint8)
        )
        measured = replace(first, fidelity=fidelity.share, token_fidelity=fidelity)
        return with_spans(memory, [measured, *rest])

    return make


def page_of(memory: Memory) -> str:
    return fidelity_page(memory, [range(d.tokens) for d in memory.documents], title="a & b")


def test_page_shows_the_whole_text_and_stands_alone(mixed):
    page = page_of(mixed)
    assert "".join(Page(page).text) == "abcdefghijKLMNOP"
    assert not re.search(r"https?:|src=|href=|url\(|@import|<script|<link", page)
    assert "default-src 'none'" in page


def test_markup_in_text_and_names_is_escaped(make):
    text = "<script>alert('1')</script> & \x00\u202e\n"
    parsed = Page(page_of(make(text, set())))
    assert not parsed.tags & {"script", "b"}
    shown = text.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    assert "".join(parsed.text) == shown


def test_lost_tokens_stand_out_and_those_in_numbers_are_underlined(make):
    page = page_of(make("we paid 1200 to someone", {1, 9}))
    looks = {data: name for name, data in Page(page).shaded}
    assert (looks["w"], looks["e"], looks["2"]) == ("c9", "c0 l", "c0 l u")
    assert "1 numbers, names or pieces of code" in page


def test_verbatim_text_is_told_from_compressed_text(make):
    parsed = Page(page_of(make("abcdefgh", {0}, "s5 t3")))
    assert parsed.shaded == [("c0 l", "a"), ("c9", "bcde"), ("v", "fgh")]


def test_spans_are_listed_with_what_they_take(mixed):
    page = page_of(mixed)
    assert page.count("<tr><td>") == 1 + len(mixed.spans)
    assert "verbatim</td><td>100.0 %" in page
    assert "slots, 2x</td>" in page


def test_unmeasured_text_is_grey_and_says_so(mixed):
    spans = [
        span if span.kind == "tokens" else replace(span, fidelity=None, token_fidelity=None)
        for span in mixed.spans
    ]
    page = page_of(with_spans(mixed, spans))
    assert {name for name, _ in Page(page).shaded} == {"v", "n"}
    assert "whole spans are shaded" in page


def test_unknown_places_shade_whole_spans(build):
    memory = build("abcdef", "s4 t2")
    page = fidelity_page(memory, [None], title="x")
    assert [data for _, data in Page(page).shaded] == ["abcd", "ef"]


def test_a_notebook_shows_a_memory_with_its_spans_shaded_and_keeps_its_own_style(mixed):
    shown = mixed._repr_html_()
    assert shown == fidelity_html(mixed)
    assert "".join(Page(shown).text) == "abcdefghijKLMNOP"
    assert shown.startswith('<div class="icae"><style>')
    style = shown.partition("<style>")[2].partition("</style>")[0]
    assert re.fullmatch(r"\s*\.icae\{.*\}\s*", style, re.DOTALL)
    tokens = fidelity_html(mixed, [range(d.tokens) for d in mixed.documents])
    assert len(Page(tokens).shaded) > len(Page(shown).shaded)


def test_a_notebook_shows_the_figures_of_a_memory_without_its_text(mixed):
    without = replace(mixed, documents=tuple(replace(d, source=None) for d in mixed.documents))
    shown = without._repr_html_()
    assert "not kept" in shown
    assert "<td>16</td>" in shown
