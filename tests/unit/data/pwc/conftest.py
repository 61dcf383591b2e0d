"""Contexts and replies made by hand; a tokenizer whose tokens are words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from icae.data.pwc.records import Context, Reply

TEXT = (
    "Ada Lovelace was born in London in 1815. She worked with Charles Babbage on his engine. "
    "Her notes of 1843 describe how the engine would compute Bernoulli numbers."
)


class WordTokenizer:
    """Every run of characters that are not spaces is a token."""

    def __call__(self, text: list[str], /, *, add_special_tokens: bool, **options: Any) -> Any:
        assert add_special_tokens is False
        return {"input_ids": [[len(word) for word in re.findall(r"\S+", one)] for one in text]}

    def __len__(self) -> int:
        return 1000


@pytest.fixture
def word_tokenizer() -> WordTokenizer:
    return WordTokenizer()


@pytest.fixture
def make_context() -> Callable[..., Context]:
    def make(text: str = TEXT, *, number: int = 1, **fields: Any) -> Context:
        return Context(
            **{
                "id": f"{number:032x}",
                "document": f"{number:032x}",
                "text": text,
                "tokens": len(text.split()),
                "source": "notes",
                **fields,
            }
        )

    return make


@pytest.fixture
def make_reply() -> Callable[..., Reply]:
    def make(text: str, *, request: str = "r", finish: Any = "stop") -> Reply:
        return Reply(
            request=request,
            text=text,
            finish=finish,
            prompt_tokens=7,
            completion_tokens=3,
            model="m",
        )

    return make
