"""A small memory, and a second writer of memory files that follows the document only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icae.memory import (
    Memory,
    MemoryDocument,
    MemorySpan,
    Provenance,
    Segment,
    TokenFidelity,
    memory_of_segments,
)

# Astral, combining and CJK characters: code points, UTF-8 bytes and UTF-16 units all differ.
TEXTS = ("Der Fluß 𝔘nd e\u0301in 漢字-Text.\n", 'plain "quoted" text\x00\t🙂')


@pytest.fixture
def provenance() -> Provenance:
    return Provenance(
        base_model="tiny-base",
        base_hash="b" * 64,
        adapter="tiny-adapter",
        adapter_hash="a" * 64,
        tokenizer_hash="t" * 64,
        layout="uniform-encoder",
        hidden_size=3,
        slot_dtype="float32",
    )


def document(text: str, *, name: str, tokens: int) -> MemoryDocument:
    return MemoryDocument(
        name=name,
        sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
        chars=len(text),
        tokens=tokens,
        source=text,
        token_ids_sha256="0" * 64,
    )


@pytest.fixture
def memory(provenance: Provenance) -> Memory:
    """Two documents of 6 and 3 tokens in three spans; 5 slots of 3 values."""
    first, second = TEXTS
    span = MemorySpan(
        document=0,
        token_start=0,
        token_end=4,
        char_start=0,
        char_end=10,
        slot_start=0,
        slot_end=2,
        ratio=2.0,
        fidelity=0.5,
    )
    return Memory(
        slots=np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32),
        spans=(
            span,
            replace(
                span,
                token_start=4,
                token_end=6,
                char_start=10,
                char_end=len(first),
                slot_start=2,
                slot_end=3,
                fidelity=1.0,
            ),
            replace(
                span,
                document=1,
                token_end=3,
                char_end=len(second),
                slot_start=3,
                slot_end=5,
                fidelity=0.25,
            ),
        ),
        documents=(
            document(first, name="erste.txt", tokens=6),
            document(second, name="second", tokens=3),
        ),
        provenance=provenance,
        created_by="icae test",
    )


@pytest.fixture
def build(provenance: Provenance) -> Callable[..., Memory]:
    """``build("abcdef", "s2 t1 s3", name=...)``: a character is a token.

    Spans in order: ``s3`` is three tokens as slots, ``t1`` one verbatim token. Slots have
    random values, so that no two are the same.
    """

    def make(text: str, plan: str, *, name: str = "doc", seed: int = 0) -> Memory:
        rng = np.random.default_rng(seed)
        segments, at = [], 0
        for word in plan.split():
            length = int(word[1:])
            ids = np.array([ord(c) for c in text[at : at + length]], dtype=np.int64)
            at += length
            if word[0] == "t":
                segments.append(Segment.of_tokens(ids, hidden_size=3))
                continue
            fidelity = TokenFidelity(
                reproduced=rng.random(length) < 0.5,
                confidence=rng.integers(0, 256, length).astype(np.uint8),
            )
            slots = rng.normal(size=((length + 1) // 2, 3)).astype(np.float32)
            segments.append(Segment.of_slots(ids, slots, ratio=2.0, token_fidelity=fidelity))
        return memory_of_segments(
            segments,
            text=text,
            offsets=list(range(len(text))),
            name=name,
            provenance=provenance,
        )

    return make


@pytest.fixture
def mixed(build: Callable[..., Memory]) -> Memory:
    """Two documents: 3 slots spans and a verbatim one; one of slots between verbatim ones."""
    return build("abcdefghij", "s3 t2 s4 s1", name="first") + build(
        "KLMNOP", "t1 s3 t2", name="second", seed=1
    )


@pytest.fixture
def as_bfloat16() -> Callable[[Memory], Memory]:
    def convert(memory: Memory) -> Memory:
        return replace(memory, provenance=replace(memory.provenance, slot_dtype="bfloat16"))

    return convert


@pytest.fixture
def unpacked() -> Callable[[Path], tuple[dict[str, str], dict[str, Any], bytes]]:
    """Take a file apart: metadata, tensor entries, data."""

    def unpack(path: Path) -> tuple[dict[str, str], dict[str, Any], bytes]:
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        index = json.loads(content[8:end])
        return index.pop("__metadata__"), index, content[end:]

    return unpack


@pytest.fixture
def repacked() -> Callable[..., None]:
    """Put a file together again, with a digest that matches what is in it."""

    def repack(path: Path, metadata: dict[str, str], entries: dict[str, Any], data: bytes) -> None:
        sealed = {**metadata, "sha256": digest_of(metadata["header"], entries, data)}
        index = json.dumps({"__metadata__": sealed, **entries}).encode("utf-8")
        path.write_bytes(len(index).to_bytes(8, "little") + index + data)

    return repack


def digest_of(header: str, entries: dict[str, Any], data: bytes) -> str:
    parts = [header.encode("utf-8")]
    for name in sorted(entries):
        start, end = entries[name]["data_offsets"]
        head = json.dumps([name, entries[name]["dtype"], entries[name]["shape"]])
        parts += [head.replace(" ", "").encode("utf-8"), data[start:end]]
    content = b"icae-memory/3\n"
    for part in parts:
        content += len(part).to_bytes(8, "little") + part
    return hashlib.sha256(content).hexdigest()
