from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from icae.errors import InputError
from icae.evals.questions import SPARE, Room, read_question_sets

ROOM = Room(window=256, answer=8)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    filled = [{"context": "in the inner lamp", "prompt": "who?", "answer": "a", **r} for r in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in filled), encoding="utf-8")
    return path


def read(paths: list[Path], tokenizer: Any, **options: Any) -> Any:
    settings = {"room": ROOM, "count": None, "seed": 0, **options}
    return read_question_sets(paths, tokenizer, **settings)


def test_questions_about_one_text_share_their_group_and_short_contexts_come_first(
    tmp_path: Path, tokenizer: Any
) -> None:
    rows = [{"context": text, "prompt": p} for p in "xyz" for text in ("a longer text", "short")]
    (found,) = read([write(tmp_path / "squad.jsonl", rows)], tokenizer)
    assert found.name == "squad"
    assert [q.context for q in found.questions] == ["short"] * 3 + ["a longer text"] * 3
    assert len(set(found.groups[:3])) == len(set(found.groups[3:])) == 1
    assert (found.in_file, found.too_long, found.choices) == (6, 0, ())


def test_a_draw_is_random_and_repeats_by_seed(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "q.jsonl", [{"prompt": str(i)} for i in range(50)])
    draws = [
        [q.prompt for q in read([path], tokenizer, count=6, seed=seed)[0].questions]
        for seed in (0, 0, 1)
    ]
    assert len(draws[0]) == 6
    assert draws[0] == draws[1]
    assert set(draws[0]) != set(draws[2])
    assert set(draws[0]) != {str(i) for i in range(6)}


def test_what_does_not_fit_is_left_out_and_counted(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"context": "x" * n} for n in (20, 30, 100, 400)]
    path = write(tmp_path / "q.jsonl", rows)
    with caplog.at_level(logging.WARNING):
        (found,) = read([path], tokenizer)
    assert [len(q.context) for q in found.questions] == [20, 30, 100]
    assert (found.in_file, found.too_long) == (4, 1)
    assert "1 of 4 questions are too long" in caplog.text
    (capped,) = read([path], tokenizer, room=Room(window=256, answer=8, context=30))
    assert (len(capped.questions), capped.too_long) == (2, 2)


@pytest.mark.parametrize(("answer", "reference"), [(20, 3), (3, 20)])
def test_room_counts_context_prompt_and_the_longer_of_answer_and_reference(
    answer: int, reference: int
) -> None:
    room = Room(window=100, answer=answer)
    assert room.holds(100 - SPARE - 20 - 5, 5, reference)
    assert not room.holds(100 - SPARE - 20 - 4, 5, reference)


def test_too_few_questions_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "q.jsonl", [{}, {"context": "x" * 400}])
    with pytest.raises(InputError, match="Too few questions") as caught:
        read([path], tokenizer)
    assert caught.value.got == "1 of 2"


def test_two_files_of_one_name_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "q.jsonl", [{}, {}])
    with pytest.raises(InputError, match="same name"):
        read([tmp_path / "a", tmp_path / "b"], tokenizer)


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
    tmp_path: Path, tokenizer: Any, answers: list[str], choices: tuple[str, ...]
) -> None:
    path = write(tmp_path / "q.jsonl", [{"answer": answer} for answer in answers])
    (found,) = read([path], tokenizer)
    assert found.choices == choices
    if choices == ("Yes.", "No."):
        assert found.commonest_choice == 0.75
