from __future__ import annotations

from typing import Any

import pytest

from icae.errors import RequestError
from icae.serve.chats import conversation, split_message

LONG = " ".join(["word"] * 60)
TWICE = f"{LONG}\n\n{LONG}"


@pytest.mark.parametrize(
    ("role", "text", "stays", "memory"),
    [
        ("user", "one two three", "one two three", ""),
        ("user", f"{LONG}\n\nWho is it?", "Who is it?", LONG),
        ("user", f"{LONG}\nWho is it?", "Who is it?", LONG),
        ("user", f"Read this.\n\n{TWICE}\n\nWho is it?", "Read this.\n\nWho is it?", TWICE),
        ("user", f"Who is it?\n\n{TWICE}", "Who is it?", TWICE),
        ("user", f"Who is it?\n\n{LONG}", "Who is it?", LONG),
        ("user", f"{TWICE}\n\nWho is it?\n\n", "Who is it?", TWICE),
        ("user", LONG, LONG, ""),
        ("system", f"{LONG}\n\nBe kind.", "", f"{LONG}\n\nBe kind."),
        ("assistant", f"{LONG}\n\nYes.", f"{LONG}\n\nYes.", ""),
    ],
)
def test_of_a_long_message_the_question_stays_text_and_the_bulk_becomes_memory(
    role: Any, text: str, stays: str, memory: str
) -> None:
    split = split_message(role, text, longest=20, count=lambda text: len(text.split()))
    assert split == (stays, memory)


def test_a_conversation_becomes_turns_and_a_question() -> None:
    said = [("system", "S"), ("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")]
    assert conversation(said) == ("d", [("S\n\na", "b\n\nc")])
    with pytest.raises(RequestError, match="starts with an answer"):
        conversation([("assistant", "x"), ("user", "y")])
