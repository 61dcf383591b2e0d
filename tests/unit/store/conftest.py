"""Small memories of words: a word is a token, and every text is its own document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from icae.memory import Memory, Provenance, Segment, TokenFidelity, memory_of_segments
from icae.store import SqliteStore

SPAN = 32


def make_provenance(adapter_hash: str = "a" * 64) -> Provenance:
    return Provenance(
        base_model="tiny-base",
        base_hash="b" * 64,
        adapter="tiny-adapter",
        adapter_hash=adapter_hash,
        tokenizer_hash="t" * 64,
        layout="uniform-encoder",
        hidden_size=3,
        slot_dtype="float32",
    )


def make_memory(
    text: str, *, name: str = "doc", ratio: float = 4.0, provenance: Provenance | None = None
) -> Memory:
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    rng = np.random.default_rng(len(text))
    segments = []
    for first in range(0, len(starts), SPAN):
        length = min(SPAN, len(starts) - first)
        slots = rng.normal(size=(-(-length // int(ratio)), 3)).astype(np.float32)
        fidelity = TokenFidelity.of_verbatim(length)
        ids = np.arange(first, first + length, dtype=np.int64)
        segments.append(Segment.of_slots(ids, slots, ratio=ratio, token_fidelity=fidelity))
    return memory_of_segments(
        segments,
        text=text,
        offsets=starts,
        name=name,
        provenance=provenance or make_provenance(),
    )


def filler(words: int, *, word: str = "filler") -> str:
    return " ".join(f"{word}{i}" for i in range(words))


@pytest.fixture(scope="session")
def build() -> Callable[..., Memory]:
    """``build(text, name=..., ratio=..., provenance=...)``; spans of 32 words."""
    return make_memory


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
