from __future__ import annotations

import json

import pytest

from icae.data.pwc.parsing import read_answer, read_pairs
from icae.data.pwc.prompts import Prompt

GENERAL = (
    Prompt(task="title", text="Give the text a short title.", tokens=9),
    Prompt(task="topic", text="What is the main topic?", tokens=9),
)
PAIR = {"prompt": "Who was born in London?", "answer": "Ada Lovelace"}
TITLE = {"number": 1, "answer": "The First Programmer"}
TOPIC = {"number": 2, "answer": "The text is about the life of Ada Lovelace."}


@pytest.fixture
def read(make_context, make_reply):
    def run(reply, *, specific=1, general=GENERAL, **options):
        text = reply if isinstance(reply, str) else json.dumps(reply)
        return read_pairs(
            make_context(), make_reply(text, **options), specific=specific, general=general
        )

    return run


def reasons(written):
    return [one.reason for one in written.rejections]


def test_reply_of_the_shape_asked_for_gives_all_its_pairs(read) -> None:
    written = read({"specific": [PAIR], "general": [TITLE, TOPIC]})
    assert [(p.task, p.prompt) for p in written.pairs] == [
        ("specific", "Who was born in London?"),
        ("title", "Give the text a short title."),
        ("topic", "What is the main topic?"),
    ]
    assert reasons(written) == []


def test_code_fence_around_the_whole_reply_is_taken_off(read) -> None:
    body = json.dumps({"specific": [PAIR]})
    assert len(read(f"```json\n{body}\n```", general=()).pairs) == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Sure! Here is the JSON:", "not_json"),
        ('Here: {"specific": [], "general": []}', "not_json"),
        ("", "not_json"),
        ("[1, 2]", "wrong_shape"),
        ('{"specific": [], "general": {}}', "wrong_shape"),
        ('{"specific": []}', "wrong_shape"),
        ("[" * 100_000, "not_json"),
    ],
)
def test_other_replies_are_rejected_as_a_whole_and_kept(read, reply, reason) -> None:
    written = read(reply)
    assert written.pairs == ()
    assert [(r.reason, r.task, r.answer) for r in written.rejections] == [(reason, "reply", reply)]


def test_reply_that_was_cut_off_is_rejected_even_if_it_is_json(read) -> None:
    written = read({"specific": [PAIR], "general": [TITLE, TOPIC]}, finish="length")
    assert (written.pairs, reasons(written)) == ((), ["truncated"])


@pytest.mark.parametrize(
    "entry",
    [
        "Who?",
        {"prompt": "Who?"},
        {"prompt": 3, "answer": "x"},
        {"prompt": " ", "answer": "x"},
        {"prompt": "Who?", "answer": "\ud800"},
    ],
)
def test_entry_of_another_shape_is_rejected_alone(read, entry) -> None:
    written = read({"specific": [entry, PAIR]}, specific=2, general=())
    assert [p.answer for p in written.pairs] == ["Ada Lovelace"]
    assert reasons(written) == ["wrong_entry"]
    json.dumps(written.rejections[0].answer).encode("utf-8")


def test_prompts_beyond_the_number_asked_for_are_surplus(read) -> None:
    written = read({"specific": [PAIR, {"prompt": "When?", "answer": "1815"}]}, general=())
    assert (len(written.pairs), reasons(written)) == (1, ["surplus"])


def test_numbers_not_asked_for_and_numbers_left_out_are_told_apart(read) -> None:
    entries = [TITLE, TITLE, {"number": 9, "answer": "x"}, {"number": True, "answer": "x"}]
    written = read({"general": entries}, specific=0)
    assert [p.task for p in written.pairs] == ["title"]
    assert reasons(written) == ["unasked", "unasked", "wrong_entry", "missing"]


def test_answer_with_a_flaw_is_rejected_with_its_prompt(read) -> None:
    written = read({"specific": [{"prompt": "Who?", "answer": "I'm sorry."}]}, general=())
    assert [(r.reason, r.prompt, r.answer) for r in written.rejections] == [
        ("refusal", "Who?", "I'm sorry.")
    ]


def test_plain_answer_that_was_cut_off_is_unterminated(make_context, make_reply) -> None:
    text = "The text is about the life of Ada Lovelace."
    whole = read_answer(make_context(), make_reply(text), GENERAL[1])
    cut = read_answer(make_context(), make_reply(text, finish="length"), GENERAL[1])
    assert [p.answer for p in whole.pairs] == [text]
    assert reasons(cut) == ["unterminated"]
