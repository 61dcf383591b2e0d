"""A fake encoder on real memories: a word is a token, nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from word_encoder import TEXTS, WordEncoder

from icae.serve.bulk import BulkJob


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """``write_lines(records, name=...)``: a JSON-lines file; text goes in as it is."""

    def write(records: Sequence[Any], *, name: str = "docs.jsonl") -> Path:
        path = tmp_path / name
        lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def documents(write_lines: Callable[..., Path]) -> Path:
    """Ten documents, ``doc-0`` to ``doc-9``."""
    return write_lines([{"id": f"doc-{i}", "text": text} for i, text in enumerate(TEXTS)])


@pytest.fixture
def build_job(tmp_path: Path, documents: Path) -> Callable[..., BulkJob]:
    """``build_job(output="out", source=..., encoder=..., block_size=3, **work)``: a run."""

    def build(
        output: str = "out",
        *,
        source: Path = documents,
        encoder: Callable[[], Any] = WordEncoder,
        block_size: int = 3,
        **work: Any,
    ) -> BulkJob:
        settings = {"ratio": 4.0, "verify": True, "keep_source": True, **work}
        return BulkJob(
            source=source,
            output=tmp_path / output,
            load=encoder,
            **settings,
            block_size=block_size,
            maker={"adapter": "a" * 64, "base": "tiny", "dtype": "float32"},
        )

    return build
