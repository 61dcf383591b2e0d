"""Memories of words, without a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icae.config.spans import slot_count
from icae.errors import InputError
from icae.memory import Memory, Provenance, Segment, TokenFidelity, memory_of_segments

TEXTS = [f"Document {i} speaks of {i} things and no more." for i in range(10)]

PROVENANCE = Provenance(
    base_model="tiny",
    base_hash="b" * 64,
    adapter="words",
    adapter_hash="a" * 64,
    tokenizer_hash="t" * 64,
    layout="uniform-encoder",
    hidden_size=3,
    slot_dtype="float32",
)


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
        starts = [m.start() for m in re.finditer(r"\S+", text)]
        ids = np.arange(len(starts), dtype=np.int64)
        slots = np.full((slot_count(len(ids), ratio), 3), len(text), dtype=np.float32)
        fidelity = TokenFidelity(
            reproduced=ids % 2 == 0, confidence=np.full(len(ids), 100, dtype=np.uint8)
        )
        segment = Segment.of_slots(
            ids, slots, ratio=ratio, token_fidelity=fidelity if verify else None
        )
        return memory_of_segments(
            [segment], text=text, offsets=starts, name=name, provenance=PROVENANCE
        )
