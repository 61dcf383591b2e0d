"""Small memories of words: a word is a token, and every text is its own document."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from icae.memory import Memory, Provenance
from icae.store import SqliteStore
from word_memories import make_provenance, word_memory


def filler(words: int, *, word: str = "filler") -> str:
    return " ".join(f"{word}{i}" for i in range(words))


@pytest.fixture(scope="session")
def build() -> Callable[..., Memory]:
    """``build(text, name=..., ratio=..., provenance=...)``; spans of 32 words."""
    return word_memory


@pytest.fixture(scope="session")
def provenance() -> Callable[..., Provenance]:
    return make_provenance


@pytest.fixture(scope="session")
def text_of() -> Callable[..., str]:
    """``text_of(words, word="filler")``: as many different words."""
    return filler


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memories.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with SqliteStore.create(path) as opened:
        yield opened
