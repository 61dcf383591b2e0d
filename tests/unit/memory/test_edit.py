"""Selecting, slicing, merging and editing memories, without a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icae.errors import IncompatibleMemoryError, InputError
from icae.memory import Memory, Span, merge
from word_memories import with_spans

Build = Callable[..., Memory]


def held(memory: Memory, index: int) -> tuple[str | None, Span]:
    """What a span holds, wherever it stands: its text, and the span moved to the start."""
    span = memory.spans[index]
    moved = span.moved(tokens=-span.token_start, chars=-span.char_start)
    return memory.span_source(index), moved


def everything(memory: Memory) -> list[tuple[str | None, Span]]:
    return [held(memory, i) for i in range(len(memory.spans))]


def texts(memory: Memory) -> list[str | None]:
    return [document.source for document in memory.documents]


def test_sum_keeps_what_every_span_holds(build):
    first, second = build("abcde", "s2 t3"), build("fgh", "t1 s2", seed=1)
    assert everything(first + second) == everything(first) + everything(second)
    assert merge([first, second, first]) == (first + second) + first


def test_sum_with_an_unmeasured_memory_is_not_measured_and_is_saved_so(build, tmp_path):
    first = build("abcde", "s2 t3")
    unmeasured = first.with_documents(d.without_token_fidelity() for d in first.documents)
    both = first + unmeasured
    assert both.token_fidelity is None
    both.save(tmp_path / "m.icae")
    assert Memory.load(tmp_path / "m.icae") == both


def test_selected_spans_become_documents_of_their_own(mixed):
    part = mixed.select([1, 2, 5])

    assert [d.name for d in part.documents] == ["first[3:9]", "second[1:4]"]
    assert texts(part) == ["defghi", "LMN"]
    assert [d.tokens for d in part.documents] == [6, 3]
    assert [d.token_ids_sha256 for d in part.documents] == [None, None]
    assert everything(part) == [held(mixed, i) for i in (1, 2, 5)]

    apart = mixed.select([3, 0])
    assert [d.name for d in apart.documents] == ["first[9:10]", "first[0:3]"]
    assert everything(apart) == [held(mixed, 3), held(mixed, 0)]


def test_document_selected_as_a_whole_stays_as_it_is(mixed):
    for memory in (mixed, mixed.without_source()):
        assert memory.select([4, 5, 6]).documents == memory.documents[1:]


@pytest.mark.parametrize(
    ("characters", "text"),
    [((0, 1), "abc"), ((3, 5), "de"), ((4, 9), "defghi"), ((0, 10), "abcdefghij")],
)
def test_slice_is_widened_to_whole_spans(mixed, characters, text):
    assert texts(mixed.slice(*characters)) == [text]
    assert texts(mixed.slice(0, 2, document=-1)) == ["KLMN"]


REFUSED: list[tuple[Callable[[Memory], object], str]] = [
    (lambda m: m.slice(-1, 2), "no such characters"),
    (lambda m: m.slice(3, 2), "no such characters"),
    (lambda m: m.slice(0, 11), "no such characters"),
    (lambda m: m.slice(4, 4), "nothing to slice"),
    (lambda m: m.slice(0, 1, document=2), "no such document"),
    (lambda m: m.select([]), "nothing to select"),
    (lambda m: m.select([-1]), "no such span"),
    (lambda m: m.select([7]), "no such span"),
    (lambda m: m.replace_spans(0, 0, 4, None), r"(?s)first would be left.*Delete the document"),
    (lambda m: m.replace_spans(0, -1, 1, None), "first has no such spans"),
    (lambda m: m.replace_spans(0, 2, 1, None), "first has no such spans"),
    (lambda m: m.replace_spans(0, 0, 5, None), "first has no such spans"),
    (lambda m: m.replace_spans(0, 4, 4, m), "several"),
    (lambda m: m.without_source().select([0]), "no source text for first"),
    (lambda m: m.without_source().replace_spans(0, 0, 1, None), "no source text for first"),
]


@pytest.mark.parametrize(("edit", "message"), REFUSED)
def test_edit_that_is_not_possible_is_refused(mixed, edit, message):
    with pytest.raises(InputError, match=message):
        edit(mixed)


@pytest.mark.parametrize(
    ("run", "text"),
    [
        ((0, 0), "xyzabcdefghij"),
        ((2, 2), "abcdexyzfghij"),
        ((1, 3), "abcxyzj"),
        ((0, 4), "xyz"),
        ((4, 4), "abcdefghijxyz"),
    ],
)
def test_replaced_spans_give_way_to_the_new_ones(mixed, build, run, text):
    added = replace(build("xyz", "s1 t2", seed=2), created_by="another program")
    changed = mixed.replace_spans(0, *run, added)

    assert texts(changed) == [text, "KLMNOP"]
    old = everything(mixed)
    assert everything(changed) == old[: run[0]] + everything(added) + old[run[1] :]
    assert changed.documents[0].token_ids_sha256 is None
    assert changed.documents[1] == mixed.documents[1]
    assert (changed.provenance, changed.created_by) == (mixed.provenance, mixed.created_by)
    known = mixed.replace_spans(0, *run, added, token_ids_sha256="0" * 64)
    assert known.documents[0].token_ids_sha256 == "0" * 64


def test_dropped_spans_take_their_text_along(mixed):
    shorter = mixed.replace_spans(1, 1, 2, None)
    assert texts(shorter) == ["abcdefghij", "KOP"]
    assert everything(shorter) == [held(mixed, i) for i in (0, 1, 2, 3, 4, 6)]


def test_replacement_of_another_model_is_refused(mixed, build):
    foreign = replace(build("x", "s1"), provenance=replace(mixed.provenance, adapter_hash="c" * 64))
    with pytest.raises(IncompatibleMemoryError):
        mixed.replace_spans(0, 0, 1, foreign)


def test_shared_characters_stay_with_the_spans_that_are_left(memory):
    # A character of several bytes: the first span ends in it, the second starts in it.
    first, *rest = memory.spans
    shared = with_spans(memory, (replace(first, char_end=11), *rest))
    text = str(memory.documents[0].source)

    assert shared.replace_spans(0, 0, 1, None).documents[0].source == text[10:]
    assert shared.replace_spans(0, 1, 2, None).documents[0].source == text[:11]


Edit = tuple[str, int, int, str]

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["extend", "replace", "drop", "slice", "merge", "select"]),
        st.integers(0, 30),
        st.integers(0, 30),
        st.sampled_from(["s1", "t1", "s2 t3", "t2 s1 s1"]),
    ),
    max_size=8,
)


def edited(memory: Memory, edit: Edit, new: Memory) -> Memory:
    """One edit, its numbers folded into what there is."""
    what, a, b, _ = edit
    document = a % len(memory.documents)
    spans = len(memory.documents[document].spans)
    first = b % (spans + 1)
    end = min(spans, first + a % 3)
    if what == "extend":
        return memory.replace_spans(document, spans, spans, new)
    if what == "replace":
        return memory.replace_spans(document, first, end, new)
    if what == "drop" and end - first < spans:
        return memory.replace_spans(document, first, end, None)
    if what == "slice":
        chars = memory.documents[document].chars
        return memory.slice(b % chars, chars, document=document)
    if what == "merge":
        return memory + new
    if what == "select":
        return memory.select(range(first % len(memory.spans), len(memory.spans)))
    return memory


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=EDITS)
def test_any_sequence_of_edits_leaves_a_sound_memory(mixed, build, tmp_path, edits):
    memory, known = mixed, set(map(repr, everything(mixed)))
    for edit in edits:
        plan, a = edit[3], edit[1]
        text = "ß漢🙂xyzuvw"[: sum(int(word[1:]) for word in plan.split())]
        new = build(text, plan, name=f"new{a}", seed=a)
        known |= set(map(repr, everything(new)))
        memory = edited(memory, edit, new)
        assert set(map(repr, everything(memory))) <= known
        for d, document in enumerate(memory.documents):
            own = memory.span_range(d)
            assert "".join(str(memory.span_source(i)) for i in own) == document.source
    memory.save(tmp_path / "m.icae")
    assert Memory.load(tmp_path / "m.icae") == memory
