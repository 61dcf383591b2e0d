from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from icae.memory import merge
from icae.store.passages import PASSAGE_TOKENS, passages_of


def test_spans_are_joined_until_a_passage_is_long_enough(build, text_of) -> None:
    passages = passages_of(build(text_of(300)))
    assert [(p.span_first, p.span_end) for p in passages] == [(0, 4), (4, 8), (8, 10)]
    assert [p.positions for p in passages] == [32, 32, 11]


def test_passages_end_with_their_document(build, text_of) -> None:
    memory = build(text_of(40)) + build(text_of(40, word="other"), name="second")
    passages = passages_of(memory)
    assert [(p.document, p.document_name) for p in passages] == [(0, "doc"), (1, "second")]
    assert passages[1].char_start == 0
    assert passages[1].text.startswith("other0 ")
    some_text = build(text_of(40)).without_source() + build("kept text", name="second")
    assert [p.document_name for p in passages_of(some_text)] == ["second"]


@settings(max_examples=25, deadline=None)
@given(words=st.lists(st.integers(1, 400), min_size=1, max_size=3))
def test_passages_tile_spans_and_text(build, text_of, words) -> None:
    memory = merge([build(text_of(n, word=f"w{i}x")) for i, n in enumerate(words)])
    passages = passages_of(memory)
    spans = [i for p in passages for i in range(p.span_first, p.span_end)]
    assert spans == list(range(len(memory.spans)))
    for index, document in enumerate(memory.documents):
        own = [p for p in passages if p.document == index]
        assert "".join(p.text for p in own) == document.source
        for passage in own[:-1]:
            tokens = memory.spans[passage.span_first : passage.span_end]
            assert sum(span.tokens for span in tokens) >= PASSAGE_TOKENS
