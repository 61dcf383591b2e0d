"""Memories of words, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icae.data.rows import read_rows
from icae.errors import InputError
from icae.memory import Memory, TokenFidelity
from word_memories import word_memory

TEXTS = [f"Document {i} speaks of {i} things and no more." for i in range(10)]


def rows_of(folder: Path) -> list[Any]:
    """What a bulk run wrote there, in order."""
    return [row for part in sorted((folder / "parts").iterdir()) for _, row in read_rows(part)]


@dataclass
class WordEncoder:
    """One span a text; a text that says "forbidden" is refused, one that says "bug" crashes."""

    def compress_many(
        self, texts: Sequence[str], *, ratio: float, names: Sequence[str], verify: bool
    ) -> list[Memory]:
        return [
            self.compress(text, ratio=ratio, name=name, verify=verify)
            for text, name in zip(texts, names, strict=True)
        ]

    def compress(self, text: str, *, ratio: float, name: str, verify: bool) -> Memory:
        if "forbidden" in text:
            raise InputError("The text is forbidden.", got=name)
        if "bug" in text:
            raise ZeroDivisionError("a bug\nof the encoder")

        def held(span: int, tokens: int) -> TokenFidelity | None:
            reproduced = np.arange(tokens) % 2 == 0
            confidence = np.full(tokens, 100, dtype=np.uint8)
            measured = TokenFidelity(reproduced=reproduced, confidence=confidence)
            return measured if verify else None

        return word_memory(text, name=name, ratio=ratio, span_length=10_000, held=held)
