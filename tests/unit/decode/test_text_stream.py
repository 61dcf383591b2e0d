from __future__ import annotations

from typing import Any

import pytest

from icae.decode.answering import TextStream
from icae.model.prompts import tokenize


@pytest.mark.parametrize(
    "text",
    ["the inner thing", "Fluß 漢字", "a 👩‍👩‍👧 family", "🙂🙂", "e\u0301", "tab\tand\nline"],
)
def test_the_stream_never_cuts_a_character(tokenizer: Any, text: str) -> None:
    pieces: list[str] = []
    stream = TextStream(tokenizer, pieces.append)
    for token in tokenize(tokenizer, text).tolist():
        stream.add(token)
        # Whatever is out so far is a beginning of the text, in whole characters.
        assert text.startswith("".join(pieces))

    assert stream.close() == text
    assert "".join(pieces) == text
    assert all(pieces)


def test_text_comes_as_soon_as_it_is_whole(tokenizer: Any) -> None:
    pieces: list[str] = []
    stream = TextStream(tokenizer, pieces.append)
    grown = []
    for token in tokenize(tokenizer, "a🙂").tolist():
        stream.add(token)
        grown.append("".join(pieces))

    assert grown == ["a", "a", "a", "a", "a🙂"]


def test_a_character_that_never_ends_comes_at_the_close(tokenizer: Any) -> None:
    pieces: list[str] = []
    stream = TextStream(tokenizer, pieces.append)
    for token in tokenize(tokenizer, "ok🙂").tolist()[:-1]:
        stream.add(token)

    assert "".join(pieces) == "ok"
    assert stream.close() == "ok�"
    assert "".join(pieces) == "ok�"
    stream = TextStream(tokenizer, None)
    for token in (tokenizer.eos_token_id, *tokenize(tokenizer, " in "), tokenizer.eos_token_id):
        stream.add(int(token))
    assert stream.close() == "in"  # special tokens are not text
