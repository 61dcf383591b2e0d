"""Selecting, slicing, merging and editing memories, without a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def extended(memory: Memory, document: int, addition: Memory, **more: Any) -> Memory:
    end = len(memory.documents[document].spans)
    return memory.replace_spans(document, end, end, addition, **more)


def texts(memory: Memory) -> list[str | None]:
    return [document.source for document in memory.documents]


def test_sum_keeps_what_every_span_holds(build: Build) -> None:
    first, second = build("abcde", "s2 t3"), build("fgh", "t1 s2", seed=1)
    assert everything(first + second) == everything(first) + everything(second)
    assert merge([first, second, first]) == (first + second) + first


def test_sum_with_an_unmeasured_memory_is_not_measured_and_is_saved_so(
    build: Build, tmp_path: Path
) -> None:
    first = build("abcde", "s2 t3")
    unmeasured = first.with_documents(d.without_token_fidelity() for d in first.documents)
    both = first + unmeasured
    assert both.token_fidelity is None
    both.save(tmp_path / "m.icae")
    assert Memory.load(tmp_path / "m.icae") == both


def test_selected_spans_become_documents_of_their_own(mixed: Memory) -> None:
    part = mixed.select([1, 2, 5])

    assert [d.name for d in part.documents] == ["first[3:9]", "second[1:4]"]
    assert texts(part) == ["defghi", "LMN"]
    assert [d.tokens for d in part.documents] == [6, 3]
    assert [d.token_ids_sha256 for d in part.documents] == [None, None]
    assert everything(part) == [held(mixed, i) for i in (1, 2, 5)]


def test_spans_that_do_not_follow_each_other_are_documents_apart(mixed: Memory) -> None:
    part = mixed.select([3, 0])
    assert [d.name for d in part.documents] == ["first[9:10]", "first[0:3]"]
    assert everything(part) == [held(mixed, 3), held(mixed, 0)]


def test_document_selected_as_a_whole_stays_as_it_is(mixed: Memory) -> None:
    part = mixed.select([4, 5, 6])
    assert part.documents == mixed.documents[1:]
    bare = mixed.without_source().select([4, 5, 6])
    assert bare.documents == mixed.without_source().documents[1:]


@pytest.mark.parametrize(
    ("characters", "text"),
    [((0, 1), "abc"), ((2, 4), "abcde"), ((3, 5), "de"), ((4, 10), "defghij"), ((0, 10), None)],
)
def test_slice_is_widened_to_whole_spans(
    mixed: Memory, characters: tuple[int, int], text: str | None
) -> None:
    assert texts(mixed.slice(*characters)) == [text or "abcdefghij"]


def test_slice_is_cut_from_the_document_named(mixed: Memory) -> None:
    assert texts(mixed.slice(0, 2, document=1)) == ["KLMN"]
    assert texts(mixed.slice(0, 2, document=-1)) == ["KLMN"]


@pytest.mark.parametrize("characters", [(-1, 2), (3, 2), (0, 11), (4, 4)])
def test_slice_out_of_range_is_refused(mixed: Memory, characters: tuple[int, int]) -> None:
    with pytest.raises(InputError):
        mixed.slice(*characters)


def test_selecting_nothing_or_what_is_not_there_is_refused(mixed: Memory) -> None:
    with pytest.raises(InputError, match="nothing to select"):
        mixed.select([])
    for index in (-1, 7):
        with pytest.raises(InputError, match="no such span"):
            mixed.select([index])
    with pytest.raises(InputError, match="no such document"):
        mixed.slice(0, 1, document=2)


def test_part_of_a_text_that_was_not_kept_is_refused(mixed: Memory) -> None:
    bare = mixed.without_source()
    for cut in (
        lambda: bare.select([0]),
        lambda: bare.replace_spans(0, 0, 1, None),
        lambda: bare.replace_spans(0, 0, 1, mixed.select([4, 5, 6])),
    ):
        with pytest.raises(InputError, match="no source text for first"):
            cut()


def test_extended_document_ends_with_the_new_spans(mixed: Memory, build: Build) -> None:
    added = build("xyz", "s1 t2", seed=2)

    longer = extended(mixed, 0, added)

    assert texts(longer) == ["abcdefghijxyz", "KLMNOP"]
    before, after = everything(mixed), everything(added)
    assert everything(longer) == before[:4] + after + before[4:]
    assert longer.documents[0].token_ids_sha256 is None
    assert longer.documents[1] == mixed.documents[1]
    assert (longer.provenance, longer.created_by) == (mixed.provenance, mixed.created_by)


def test_digest_of_the_new_ids_is_recorded_where_it_is_known(mixed: Memory, build: Build) -> None:
    longer = extended(mixed, 0, build("x", "s1"), token_ids_sha256="0" * 64)
    assert longer.documents[0].token_ids_sha256 == "0" * 64


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
def test_replaced_spans_give_way_to_the_new_ones(
    mixed: Memory, build: Build, run: tuple[int, int], text: str
) -> None:
    added = build("xyz", "s1 t2", seed=2)
    changed = mixed.replace_spans(0, *run, added)

    assert texts(changed) == [text, "KLMNOP"]
    old = everything(mixed)
    assert everything(changed) == old[: run[0]] + everything(added) + old[run[1] :]


def test_replacing_at_the_start_keeps_the_provenance_of_the_whole(
    mixed: Memory, build: Build
) -> None:
    added = replace(build("x", "s1"), created_by="another program")
    assert mixed.replace_spans(0, 0, 1, added).created_by == mixed.created_by


def test_dropped_spans_take_their_text_along(mixed: Memory) -> None:
    shorter = mixed.replace_spans(1, 1, 2, None)
    assert texts(shorter) == ["abcdefghij", "KOP"]
    assert everything(shorter) == [held(mixed, i) for i in (0, 1, 2, 3, 4, 6)]


def test_dropping_all_spans_of_a_document_is_refused(mixed: Memory) -> None:
    with pytest.raises(InputError, match=r"(?s)first would be left.*Delete the document"):
        mixed.replace_spans(0, 0, 4, None)


@pytest.mark.parametrize("run", [(-1, 1), (2, 1), (0, 5)])
def test_runs_that_do_not_exist_are_refused(mixed: Memory, run: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="first has no such spans"):
        mixed.replace_spans(0, *run, None)


def test_deleted_document_leaves_the_others(mixed: Memory) -> None:
    left = mixed.delete_document(0)
    assert left.documents == mixed.documents[1:]
    assert everything(left) == everything(mixed)[4:]
    assert mixed.delete_document(-1).documents == mixed.documents[:1]
    with pytest.raises(InputError, match="cannot be empty"):
        left.delete_document(0)


def test_replacement_of_several_documents_or_another_model_is_refused(
    mixed: Memory, build: Build
) -> None:
    with pytest.raises(InputError, match="several"):
        extended(mixed, 0, mixed)
    foreign = replace(build("x", "s1"), provenance=replace(mixed.provenance, adapter_hash="c" * 64))
    with pytest.raises(IncompatibleMemoryError):
        mixed.replace_spans(0, 0, 1, foreign)


def test_shared_characters_stay_with_the_spans_that_are_left(memory: Memory) -> None:
    # A character of several bytes: the first span ends in it, the second starts in it.
    first, *rest = memory.spans
    shared = with_spans(memory, (replace(first, char_end=11), *rest))
    text = str(memory.documents[0].source)

    assert shared.replace_spans(0, 0, 1, None).documents[0].source == text[10:]
    assert shared.replace_spans(0, 1, 2, None).documents[0].source == text[:11]


Edit = tuple[str, int, int, str]

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["extend", "replace", "drop", "slice", "merge", "delete", "select"]),
        st.integers(0, 30),
        st.integers(0, 30),
        st.sampled_from(["s1", "t1", "s2 t3", "t2 s1 s1"]),
    ),
    max_size=8,
)


def edited(memory: Memory, edit: Edit, build: Build) -> Memory:
    """One edit, its numbers folded into what there is."""
    what, a, b, plan = edit
    document = a % len(memory.documents)
    spans = len(memory.documents[document].spans)
    first = b % (spans + 1)
    end = min(spans, first + a % 3)
    text = "ß漢🙂xyzuvw"[: sum(int(word[1:]) for word in plan.split())]
    new = build(text, plan, name=f"new{a}", seed=a)
    if what == "extend":
        return extended(memory, document, new)
    if what == "replace":
        return memory.replace_spans(document, first, end, new)
    if what == "drop" and end - first < spans:
        return memory.replace_spans(document, first, end, None)
    if what == "slice":
        chars = memory.documents[document].chars
        return memory.slice(b % chars, chars, document=document)
    if what == "merge":
        return memory + new
    if what == "delete" and len(memory.documents) > 1:
        return memory.delete_document(document)
    if what == "select":
        return memory.select(range(first % len(memory.spans), len(memory.spans)))
    return memory


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=EDITS)
def test_any_sequence_of_edits_leaves_a_sound_memory(
    mixed: Memory, build: Build, tmp_path: Path, edits: list[Edit]
) -> None:
    memory, known = mixed, set(map(repr, everything(mixed)))
    for edit in edits:
        plan, a = edit[3], edit[1]
        text = "ß漢🙂xyzuvw"[: sum(int(word[1:]) for word in plan.split())]
        known |= set(map(repr, everything(build(text, plan, seed=a))))
        memory = edited(memory, edit, build)
        assert set(map(repr, everything(memory))) <= known
        for d, document in enumerate(memory.documents):
            own = memory.span_range(d)
            assert "".join(str(memory.span_source(i)) for i in own) == document.source
    memory.save(tmp_path / "m.icae")
    assert Memory.load(tmp_path / "m.icae") == memory
