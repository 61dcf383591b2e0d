from __future__ import annotations

from typing import Any

import pytest

from icae.errors import RequestError
from icae.serve.chat_bridge import conversation, split_message

LONG = " ".join(["word"] * 60)


def split(role: Any, text: str, longest: int = 20) -> tuple[str, str]:
    return split_message(role, text, longest=longest, count=lambda text: len(text.split()))


def test_a_short_message_stays_text() -> None:
    assert split("user", "one two three") == ("one two three", "")


@pytest.mark.parametrize("mark", ["\n\n", "\n"])
def test_of_a_long_message_a_short_question_at_its_end_stays_text(mark: str) -> None:
    assert split("user", f"{LONG}{mark}Who is it?") == ("Who is it?", LONG)


def test_a_short_first_paragraph_stays_too_and_the_middle_becomes_memory() -> None:
    text = f"Read this.\n\n{LONG}\n\n{LONG}\n\nWho is it?"
    assert split("user", text) == ("Read this.\n\nWho is it?", f"{LONG}\n\n{LONG}")


def test_a_question_that_comes_first_stays_text() -> None:
    assert split("user", f"Who is it?\n\n{LONG}\n\n{LONG}") == ("Who is it?", f"{LONG}\n\n{LONG}")
    assert split("user", f"Who is it?\n\n{LONG}") == ("Who is it?", LONG)
    assert split("user", f"{LONG}\n\n{LONG}\n\nWho is it?\n\n") == (
        "Who is it?",
        f"{LONG}\n\n{LONG}",
    )


def test_a_long_message_without_paragraphs_stays_text() -> None:
    assert split("user", LONG) == (LONG, "")


def test_a_long_text_of_the_system_becomes_memory_whole_and_an_answer_never_does() -> None:
    assert split("system", f"{LONG}\n\nBe kind.") == ("", f"{LONG}\n\nBe kind.")
    assert split("assistant", f"{LONG}\n\nYes.") == (f"{LONG}\n\nYes.", "")


def test_a_conversation_becomes_turns_and_a_question() -> None:
    said = [("system", "S"), ("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")]
    assert conversation(said) == ("d", [("S\n\na", "b\n\nc")])
    with pytest.raises(RequestError, match="starts with an answer"):
        conversation([("assistant", "x"), ("user", "y")])
