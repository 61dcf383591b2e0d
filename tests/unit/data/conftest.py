"""A tokenizer whose tokens are words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest


class WordTokenizer:
    """A token is the hash of a word; notes the size of every call, and fails at one if told."""

    def __init__(self, *, vocab_size: int = 60_000, fail_at: int | None = None) -> None:
        self.vocab_size, self.fail_at = vocab_size, fail_at
        self.calls: list[int] = []

    def __len__(self) -> int:
        return self.vocab_size

    def __call__(self, text: list[str], /, *, add_special_tokens: bool, **options: Any) -> Any:
        assert add_special_tokens is False
        assert options["verbose"] is False
        if len(self.calls) == self.fail_at:
            raise RuntimeError("stopped")
        self.calls.append(len(text))
        return {"input_ids": [[self.token(word) for word in one.split()] for one in text]}

    def token(self, word: str) -> int:
        digest = hashlib.sha1(word.encode()).digest()
        return int.from_bytes(digest[:4], "big") % self.vocab_size


@pytest.fixture
def make_tokenizer() -> Callable[..., WordTokenizer]:
    return WordTokenizer


@pytest.fixture
def word_tokenizer() -> WordTokenizer:
    return WordTokenizer()
