from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from icae.config.types import Reconstruction
from icae.decode.reconstruction import joined_text


def spans_of(*parts: tuple[int, bytes]) -> tuple[Any, list[Reconstruction]]:
    """A memory of (document, bytes) spans, every byte a token, and its reconstructions."""
    memory = SimpleNamespace(document_of=[document for document, _ in parts])
    made = [
        Reconstruction(
            span=i,
            text=part.decode(errors="replace"),
            original=None,
            token_ids=tuple(part),
            exact_prefix=1.0,
        )
        for i, (_, part) in enumerate(parts)
    ]
    return memory, made


class Bytes:
    """A tokenizer whose tokens are bytes."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return bytes(ids).decode(errors="replace")


def test_a_letter_cut_between_two_spans_is_whole_in_the_joined_text() -> None:
    letters = "한국어".encode()
    memory, made = spans_of((0, letters[:4]), (0, letters[4:]))
    assert "�" in made[0].text + made[1].text
    assert joined_text(Bytes(), memory, made) == "한국어"


def test_a_line_break_parts_documents_and_gaps() -> None:
    memory, made = spans_of((0, b"a"), (0, b"b"), (1, b"c"), (1, b"d"))
    assert joined_text(Bytes(), memory, made) == "ab\ncd"
    assert joined_text(Bytes(), memory, [made[0], made[3]]) == "a\nd"
    assert joined_text(Bytes(), memory, [made[3], made[2]]) == "d\nc"
    assert joined_text(Bytes(), memory, []) == ""
