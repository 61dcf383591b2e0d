from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from icae.errors import InputError
from icae.evals.questions import SPARE, QuestionReader, QuestionSet
from icae.model.prompts import render_prompt


@pytest.fixture
def read(write_lines: Any, tokenizer: Any) -> Callable[..., QuestionSet]:
    """``read(rows, count=..., ...)``: the questions of a file ``q.jsonl``."""

    def call(rows: list[dict[str, Any]], **options: Any) -> QuestionSet:
        base = {"context": "in the inner lamp", "prompt": "who?", "answer": "a"}
        path = write_lines("q.jsonl", [{**base, **row} for row in rows])
        room = {"window": 256, "answer": 8, "context": None, "count": None, "seed": 0}
        return QuestionReader(tokenizer=tokenizer, **{**room, **options}).read([path])["q"]

    return call


def test_questions_about_one_text_share_their_group_and_short_contexts_come_first(
    read: Any,
) -> None:
    rows = [{"context": text, "prompt": p} for p in "xyz" for text in ("a longer text", "short")]
    found = read(rows)
    assert [q.context for q in found.questions] == ["short"] * 3 + ["a longer text"] * 3
    assert len(set(found.groups[:3])) == len(set(found.groups[3:])) == 1
    assert (found.name, found.in_file, found.too_long, found.choices) == ("q", 6, 0, ())


def test_a_draw_is_random_and_repeats_by_seed(read: Any) -> None:
    rows = [{"prompt": str(i)} for i in range(50)]
    draws = [[q.prompt for q in read(rows, count=6, seed=n).questions] for n in (0, 0, 1)]
    assert len(draws[0]) == 6
    assert draws[0] == draws[1]
    assert set(draws[0]) not in (set(draws[2]), {str(i) for i in range(6)})


def test_what_does_not_fit_is_left_out_and_counted(
    read: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"context": "x" * n} for n in (20, 30, 100, 400)]
    with caplog.at_level(logging.WARNING):
        found = read(rows)
    assert [len(q.context) for q in found.questions] == [20, 30, 100]
    assert (found.in_file, found.too_long) == (4, 1)
    assert "1 of 4 questions are too long" in caplog.text
    assert read(rows, context=30).too_long == 2
    prompt = len(render_prompt(tokenizer, "who?"))
    fits = {"window": 100 + prompt + 20 + SPARE, "answer": 20}
    assert read(rows, **fits).too_long == 1
    assert read(rows, **{**fits, "answer": 21}).too_long == 2
    assert read([{"answer": "y" * 30, **row} for row in rows], **fits).too_long == 2


def test_too_few_questions_and_two_files_of_one_name_are_refused(
    read: Any, write_lines: Any, tokenizer: Any
) -> None:
    with pytest.raises(InputError, match="Too few questions") as caught:
        read([{}, {"context": "x" * 400}])
    assert caught.value.got == "1 of 2"
    row = {"context": "in the inner lamp", "prompt": "who?", "answer": "a"}
    files = [write_lines(f"{folder}/q.jsonl", [row, row]) for folder in "ab"]
    reader = QuestionReader(
        tokenizer=tokenizer, window=256, answer=8, context=None, count=None, seed=0
    )
    with pytest.raises(InputError, match="same name"):
        reader.read(files)


@pytest.mark.parametrize(
    ("answers", "choices"),
    [
        (["No.", "Yes.", "Yes.", "yes"], ("Yes.", "No.")),
        (["no", "maybe", "yes"], ("yes", "no", "maybe")),
        (["yes", "yes"], ()),
        (["yes", "no", "unknown"], ()),
    ],
)
def test_choices_are_found_where_every_answer_is_one(
    read: Any, answers: list[str], choices: tuple[str, ...]
) -> None:
    found = read([{"answer": answer} for answer in answers])
    assert found.choices == choices
    if choices == ("Yes.", "No."):
        assert found.commonest_choice == 0.75
