from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icae.errors import InputError
from icae.evals.contexts import Window, draw_windows, partners, read_documents


def numbered(lengths: Sequence[int]) -> list[Any]:
    """Documents whose token ids tell where they stand: 1000 x document + place."""
    return [1000 * i + np.arange(n) for i, n in enumerate(lengths)]


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=8),
    size=st.integers(2, 30),
    samples=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_windows_lie_in_one_document_and_do_not_overlap_while_there_is_room(
    lengths: list[int], size: int, samples: int, seed: int
) -> None:
    starts = sum(max(0, n - size + 1) for n in lengths)
    if starts < samples:
        with pytest.raises(InputError, match="too short"):
            draw_windows(numbered(lengths), size=size, samples=samples, seed=seed)
        return
    drawn = draw_windows(numbered(lengths), size=size, samples=samples, seed=seed)

    assert len(drawn.windows) == samples
    for window in drawn.windows:
        first = 1000 * window.document + window.start
        assert np.array_equal(window.ids, np.arange(first, first + size))
    assert len({(w.document, w.start) for w in drawn.windows}) == samples
    apart = drawn.windows[: samples - drawn.overlapping]
    seen = np.concatenate([w.ids for w in apart]) if apart else np.array([])
    assert len(seen) == len(set(seen))
    assert drawn.overlapping == 0 or len(apart) == sum(n // size for n in lengths)
    assert drawn.documents == sum(n >= size for n in lengths)


def test_draw_depends_on_the_seed_and_a_larger_one_starts_alike() -> None:
    documents = numbered([200] * 5)

    def places(samples: int, seed: int) -> list[tuple[int, int]]:
        drawn = draw_windows(documents, size=10, samples=samples, seed=seed)
        return [(w.document, w.start) for w in drawn.windows]

    assert places(8, 0) == places(20, 0)[:8]
    assert places(8, 0) != places(8, 1)


def test_overlaps_are_said(caplog: pytest.LogCaptureFixture) -> None:
    drawn = draw_windows(numbered([25]), size=10, samples=5, seed=0)
    assert drawn.overlapping == 3
    assert "3 of 5 windows of 10 tokens overlap" in caplog.text


def test_too_little_text_says_how_much_there_was_and_what_was_needed() -> None:
    with pytest.raises(InputError) as caught:
        draw_windows(numbered([30, 12]), size=64, samples=8, seed=0)
    assert caught.value.got == "2 documents, the longest of 30 tokens"
    assert caught.value.expected == "8 different windows of 64 tokens, each in one document"
    assert "--lengths" in str(caught.value.fix)


def test_contexts_of_all_lengths_end_where_the_following_tokens_start() -> None:
    window = Window(document=0, start=0, ids=np.arange(20))
    assert window.context(5, after=4).tolist() == [11, 12, 13, 14, 15]
    assert window.context(2, after=4).tolist() == [14, 15]
    assert window.context(4).tolist() == [16, 17, 18, 19]
    assert window.context(20).tolist() == list(range(20))


def test_partner_is_of_another_document_where_there_is_one() -> None:
    assert partners([0, 0, 1, 0]) == [2, 2, 3, 2]
    assert partners([0, 0, 0]) == [1, 2, 0]
    assert partners([0]) == [0]


def test_documents_are_tokenized_like_everywhere_else(corpus: Path, tokenizer: Any) -> None:
    documents = read_documents([corpus], tokenizer)
    assert len(documents) == 6
    text = (corpus / "0.txt").read_text()
    assert tokenizer.decode(documents[0].tolist()) == text


def test_texts_that_are_blank_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(InputError, match="hold no document"):
        read_documents([tmp_path / "blank.txt"], tokenizer)
