from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icae.memory.critical_words import CriticalWord, critical_words, overlapping_word


def kinds(text: str) -> dict[str, str]:
    return {text[word.start : word.end]: word.kind for word in critical_words(text)}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("number", ["1200", "3.5%", "$17", "v2", "2024-01-02,", "(0x1F)", "①"]),
        ("name", ["Ahab", "Müller,", '"Paris"', "Ahab's", "NASA"]),
        ("code", ["snake_case", "a.b", "getName", "src/main", "x=y", "std::move", "`ls`", "a>#"]),
    ],
)
def test_word_inside_a_sentence_is_told_by_its_looks(kind, words):
    for word in words:
        assert kinds(f"it was {word} then") == {word.strip('",()'): kind}
    assert kinds("call f() now") == {"f": "code"}


@pytest.mark.parametrize(
    "text",
    [
        "Call me.",
        "it ended. Then rain",
        'he said: "Well',
        "a line\nNext line",
        "I think I do",
        "a well-known thing – it's «fine» … (really) or so",
    ],
)
def test_plain_words_and_capitals_that_start_a_sentence_are_not_critical(text):
    assert kinds(text) == {}


@given(st.text(max_size=60))
def test_critical_words_are_in_order_and_hold_no_space(text):
    words, end = critical_words(text), 0
    for word in words:
        assert end <= word.start < word.end <= len(text)
        assert not any(c.isspace() for c in text[word.start : word.end])
        end = word.end


def test_word_is_found_by_any_character_of_it():
    words = [
        CriticalWord(start=3, end=6, kind="name"),
        CriticalWord(start=6, end=8, kind="code"),
    ]
    found = [overlapping_word(words, at, at + 1) for at in range(9)]
    assert found == [None] * 3 + [words[0]] * 3 + [words[1]] * 2 + [None]
    assert overlapping_word(words, 0, 9) == words[0]
    assert overlapping_word([], 0, 9) is None
