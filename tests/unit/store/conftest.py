from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from icae.store import MemoryStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memories.db"


@pytest.fixture
def store(path: Path) -> Iterator[MemoryStore]:
    with MemoryStore.create(path) as opened:
        yield opened
