"""Small memories, and a second writer of memory files that follows the document only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icae.memory import (
    Embeddings,
    Memory,
    MemoryDocument,
    Span,
    TokenFidelity,
    memory_bytes,
)
from icae.memory.provenance import KEY_VALUE_DTYPES
from word_memories import in_key_values, make_provenance

# Astral, combining and CJK characters: code points, UTF-8 bytes and UTF-16 units all differ.
TEXTS = ("Der Fluß 𝔘nd e\u0301in 漢字-Text.\n", 'plain "quoted" text\x00\t🙂')


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.icae"


@pytest.fixture
def provenance():
    return make_provenance()


@pytest.fixture
def memory(provenance):
    """Two documents of 6 and 3 tokens in three spans; 5 slots of 3 values."""
    first, second = TEXTS
    slots = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)

    def span(token_start: int, token_end: int, chars: tuple[int, int], rows: slice) -> Span:
        return Span(
            token_start=token_start,
            token_end=token_end,
            char_start=chars[0],
            char_end=chars[1],
            payload=Embeddings(slots_KD=slots[rows]),
            ratio=2.0,
            fidelity=(0.5, 1.0, 0.25)[rows.start // 2 if rows.start < 3 else 2],
        )

    own = [span(0, 4, (0, 10), slice(0, 2)), span(4, 6, (10, len(first)), slice(2, 3))]
    other = [span(0, 3, (0, len(second)), slice(3, 5))]
    return Memory(
        documents=(
            MemoryDocument.of_text(first, own, name="erste.txt", token_ids_sha256="0" * 64),
            MemoryDocument.of_text(second, other, name="second", token_ids_sha256="0" * 64),
        ),
        provenance=provenance,
        created_by="icae test",
    )


@pytest.fixture
def build(provenance):
    """``build("abcdef", "s2 t1 s3", name=...)``: a character is a token.

    Spans in order: ``s3`` is three tokens as slots, ``t1`` one verbatim token. Slots have
    random values, so that no two are the same.
    """

    def make(text: str, plan: str, *, name: str = "doc", seed: int = 0) -> Memory:
        rng = np.random.default_rng(seed)
        spans, at = [], 0
        for word in plan.split():
            length = int(word[1:])
            ids = np.array([ord(c) for c in text[at : at + length]], dtype=np.int64)
            span = Span.verbatim(ids, token_start=at, char_start=at, char_end=at + length)
            at += length
            if word[0] == "s":
                fidelity = TokenFidelity(
                    reproduced=rng.random(length) < 0.5,
                    confidence=rng.integers(0, 256, length).astype(np.uint8),
                )
                slots = rng.normal(size=((length + 1) // 2, 3)).astype(np.float32)
                span = replace(
                    span,
                    payload=Embeddings(slots_KD=slots),
                    ratio=2.0,
                    fidelity=fidelity.share,
                    token_fidelity=fidelity,
                )
            spans.append(span)
        document = MemoryDocument.of_text(text, spans, name=name, token_ids_sha256="1" * 64)
        return Memory(documents=(document,), provenance=provenance)

    return make


@pytest.fixture
def mixed(build):
    """Two documents: 3 slots spans and a verbatim one; one of slots between verbatim ones."""
    return build("abcdefghij", "s3 t2 s4 s1", name="first") + build(
        "KLMNOP", "t1 s3 t2", name="second", seed=1
    )


@pytest.fixture(params=KEY_VALUE_DTYPES)
def pairs(mixed, request):
    """The mixed memory as keys and values, stored in each way."""
    return in_key_values(mixed, request.param)


@pytest.fixture
def as_bfloat16():
    def convert(memory: Memory) -> Memory:
        return replace(memory, provenance=replace(memory.provenance, slot_dtype="bfloat16"))

    return convert


def described(name: str, dtype: str, shape: list[int]) -> bytes:
    return json.dumps([name, dtype, shape]).replace(" ", "").encode("utf-8")


def digest_of(start: str, *parts: bytes) -> str:
    content = start.encode() + b"\n"
    for part in parts:
        content += len(part).to_bytes(8, "little") + part
    return hashlib.sha256(content).hexdigest()


@dataclass
class TakenApart:
    """A memory file in parts that can be changed; written as any writer could."""

    metadata: dict[str, str]
    entries: dict[str, Any]
    data: bytes

    @classmethod
    def of(cls, memory: Memory) -> TakenApart:
        content = memory_bytes(memory)
        end = 8 + int.from_bytes(content[:8], "little")
        entries = json.loads(content[8:end])
        return cls(entries.pop("__metadata__"), entries, content[end:])

    @property
    def header(self) -> dict[str, Any]:
        header: dict[str, Any] = json.loads(self.metadata["header"])
        return header

    def change_header(self, change: Callable[[dict[str, Any]], object]) -> TakenApart:
        header = self.header
        change(header)
        self.metadata["header"] = json.dumps(header)
        return self

    def spans_sealed(self) -> TakenApart:
        """With digests that match what the spans hold."""
        header = self.header
        for number, span in enumerate(header["spans"]):
            row = "verbatim" if span["kind"] == "tokens" else "slot"
            rows = span[f"{row}_start"], span[f"{row}_end"]
            if span["kind"] == "key-values":
                before = [s["kind"] for s in header["spans"][:number]].count("key-values")
                own = {"key_values": rows, "key_value_steps": (before, before + 1)}
            else:
                own = {"slots" if row == "slot" else "verbatim_ids": rows}
            parts = []
            for name in sorted(own.keys() & self.entries.keys()):
                entry, (first, last) = self.entries[name], own[name]
                begin, end = entry["data_offsets"]
                size = (end - begin) // entry["shape"][0]
                shape = [last - first, *entry["shape"][1:]]
                data = self.data[begin + first * size : begin + last * size]
                parts += [described(name, entry["dtype"], shape), data]
            span["sha256"] = digest_of("icae-memory-span/4", span["kind"].encode(), *parts)
        self.metadata["header"] = json.dumps(header)
        return self.sealed()

    def sealed(self) -> TakenApart:
        """With a digest that matches the header, and what is of no span."""
        version = self.metadata["format_version"]
        parts = [self.metadata["header"].encode("utf-8")]
        apart = {"slots", "verbatim_ids", "key_values", "key_value_steps"}
        for name in sorted(self.entries.keys() - (apart if version == "4" else set())):
            entry = self.entries[name]
            start, end = entry["data_offsets"]
            parts += [described(name, entry["dtype"], entry["shape"]), self.data[start:end]]
        self.metadata["sha256"] = digest_of(f"icae-memory/{version}", *parts)
        return self

    def write(self, path: Path) -> Path:
        index = json.dumps({"__metadata__": self.metadata, **self.entries}).encode("utf-8")
        path.write_bytes(len(index).to_bytes(8, "little") + index + self.data)
        return path


@pytest.fixture
def taken_apart():
    return TakenApart.of
