"""The container against the safetensors library, and against damaged indexes."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import safetensors

from icae.errors import MemoryFileError
from icae.memory.container import (
    Tensor,
    check_extent,
    read_index,
    read_tensor,
    write_index,
)

TENSORS = {
    "slots": Tensor(dtype="BF16", shape=(2, 3), data=bytes(range(12))),
    "text": Tensor(dtype="U8", shape=(5,), data=b"hello"),
}
METADATA = {"format": "x", "note": 'Fluß "𝔘"'}


def content() -> bytes:
    data = b"".join(tensor.data for tensor in TENSORS.values())
    return write_index(METADATA, TENSORS) + data


def check(content: bytes) -> None:
    index = read_index(io.BytesIO(content), size=len(content), where="f")
    check_extent(index, size=len(content), where="f")


def indexed(index: object, data: bytes = b"") -> bytes:
    text = json.dumps(index).encode("utf-8")
    return len(text).to_bytes(8, "little") + text + data


def test_safetensors_library_reads_what_is_written() -> None:
    read = {name: (t["dtype"], t["shape"], t["data"]) for name, t in _deserialized(content())}
    assert read == {
        name: (tensor.dtype, list(tensor.shape), tensor.data) for name, tensor in TENSORS.items()
    }


def _deserialized(raw: bytes) -> list[tuple[str, dict[str, Any]]]:
    return [(name, {**t, "data": bytes(t["data"])}) for name, t in safetensors.deserialize(raw)]


def test_index_and_tensors_round_trip() -> None:
    stream = io.BytesIO(content())
    index = read_index(stream, size=len(content()), where="f")
    assert index.metadata == METADATA
    assert {n: (e.dtype, e.shape) for n, e in index.tensors.items()} == {
        n: (t.dtype, t.shape) for n, t in TENSORS.items()
    }
    assert read_tensor(stream, index, "text", where="f") == TENSORS["text"]
    assert read_tensor(stream, index, "slots", where="f") == TENSORS["slots"]


def test_tensor_data_is_aligned_to_eight_bytes() -> None:
    assert len(write_index(METADATA, TENSORS)) % 8 == 0


@pytest.mark.parametrize(
    "raw",
    [b"x", b"hello world, this is text", b"GGUF\x03\x00\x00\x00{}", b"\x02" + bytes(7) + b"[]"],
)
def test_file_of_another_kind_is_called_not_a_memory_file(raw: bytes) -> None:
    with pytest.raises(MemoryFileError, match="not a memory file"):
        check(raw)


def test_file_cut_in_the_index_or_the_data_is_called_truncated() -> None:
    for cut in (9, 20, len(content()) - 1):
        with pytest.raises(MemoryFileError, match="truncated"):
            check(content()[:cut])


def test_bytes_after_the_last_tensor_are_refused() -> None:
    with pytest.raises(MemoryFileError, match="1 bytes follow"):
        check(content() + b"\0")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"dtype": "U8", "shape": [4]},
        {"dtype": 8, "shape": [4], "data_offsets": [0, 4]},
        {"dtype": "U8", "shape": 4, "data_offsets": [0, 4]},
        {"dtype": "U8", "shape": [True, 4], "data_offsets": [0, 4]},
        {"dtype": "U8", "shape": [-4], "data_offsets": [0, 4]},
        {"dtype": "U8", "shape": [4.0], "data_offsets": [0, 4]},
        {"dtype": "U8", "shape": [4], "data_offsets": [4]},
        {"dtype": "U8", "shape": [4], "data_offsets": [4, 0]},
        {"dtype": "U8", "shape": [3], "data_offsets": [0, 4]},
        {"dtype": "U8", "shape": [3], "data_offsets": [1, 4]},
        {"dtype": "U8", "shape": [4], "data_offsets": [0, 4], "extra": 1},
    ],
    ids=str,
)
def test_tensor_that_is_described_wrongly_is_refused(entry: object) -> None:
    check(indexed({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, b"1234"))
    with pytest.raises(MemoryFileError, match="damaged"):
        check(indexed({"a": entry}, b"1234"))


def test_overlapping_tensors_are_refused() -> None:
    entry = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
    with pytest.raises(MemoryFileError, match="damaged"):
        check(indexed({"a": entry, "b": {**entry, "data_offsets": [1, 3]}}, b"123"))


@pytest.mark.parametrize("metadata", [{"a": 1}, [], "text", None], ids=str)
def test_metadata_that_is_not_text_by_key_is_refused(metadata: object) -> None:
    with pytest.raises(MemoryFileError, match="metadata"):
        check(indexed({"__metadata__": metadata}))


def test_index_longer_than_readers_accept_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icae.memory.container.MAX_INDEX_BYTES", 100)
    with pytest.raises(MemoryFileError, match="too many spans"):
        write_index(METADATA, TENSORS)
