"""The container against the safetensors library, and against damaged indexes."""

from __future__ import annotations

import io
import json

import pytest

from icae.errors import MemoryFileError
from icae.memory.container import check_extent, read_index, write_index

TENSORS = {"slots": ("BF16", (2, 3)), "text": ("U8", (5,))}
DATA = {"slots": bytes(range(12)), "text": b"hello"}
METADATA = {"format": "x", "note": 'Fluß "𝔘"'}


def content() -> bytes:
    return write_index(METADATA, TENSORS) + b"".join(DATA.values())


def check(content: bytes) -> None:
    index = read_index(io.BytesIO(content), size=len(content), where="f")
    check_extent(index, size=len(content), where="f")


def indexed(index: object, data: bytes = b"") -> bytes:
    text = json.dumps(index).encode("utf-8")
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"dtype": "U8", "shape": [1]},
        {"dtype": 8, "shape": [1], "data_offsets": [3, 4]},
        {"dtype": "U8", "shape": 1, "data_offsets": [3, 4]},
        {"dtype": "U8", "shape": [True], "data_offsets": [3, 4]},
        {"dtype": "U8", "shape": [-1], "data_offsets": [3, 4]},
        {"dtype": "U8", "shape": [1.0], "data_offsets": [3, 4]},
        {"dtype": "U8", "shape": [1], "data_offsets": [4]},
        {"dtype": "U8", "shape": [1], "data_offsets": [4, 3]},
        {"dtype": "U8", "shape": [2], "data_offsets": [3, 4]},
        {"dtype": "U8", "shape": [1], "data_offsets": [4, 5]},  # leaves a gap
        {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]},  # overlaps the one before
        {"dtype": "U8", "shape": [1], "data_offsets": [3, 4], "extra": 1},
    ],
    ids=str,
)
def test_tensor_that_is_described_wrongly_is_refused(entry):
    first = {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}
    check(indexed({"a": first}, b"123"))
    with pytest.raises(MemoryFileError, match="damaged"):
        check(indexed({"a": first, "b": entry}, b"1234"))


@pytest.mark.parametrize("metadata", [{"a": 1}, []], ids=str)
def test_metadata_that_is_not_text_by_key_is_refused(metadata):
    with pytest.raises(MemoryFileError, match="metadata"):
        check(indexed({"__metadata__": metadata}))


def test_index_longer_than_readers_accept_is_refused(monkeypatch):
    monkeypatch.setattr("icae.memory.container.MAX_INDEX_BYTES", 100)
    with pytest.raises(MemoryFileError, match="too many spans"):
        write_index(METADATA, TENSORS)
