"""The safetensors container: named arrays of bytes behind a JSON index.

Written here rather than through the safetensors library: a file has four lines of
metadata, which that one writes in random order, and a memory has to give the same bytes
every time. Read here, too: that one accepts repeated keys. Any safetensors reader opens
the result.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from icae.errors import MemoryFileError
from icae.memory.strict_json import read_strict, write_canonical

FORMAT = "icae-memory"
FORMAT_VERSION = 4
SPAN = f"{FORMAT}-span/{FORMAT_VERSION}"
"""What the digest of a span begins with."""

MAX_INDEX_BYTES = 100_000_000
"""Longest index that safetensors readers accept."""

ITEM_BYTES = {"F32": 4, "U32": 4, "BF16": 2, "U8": 1, "I8": 1}
"""Bytes of one item of each dtype that a memory file uses."""

Buffer = bytes | memoryview
"""Bytes, copied or where they lie."""

Description = tuple[str, tuple[int, ...]]
"""Dtype of a tensor by its safetensors name, and shape; items are little-endian, row-major."""

COPY_AGAIN = "Copy the file again, or compress the documents again."
NAME_ANOTHER = "Give the path of a file that `icae compress` wrote."

_METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """A tensor in an index; its bytes are ``start..end``, counted from the end of the index."""

    form: Description
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Index:
    """The index of a file: free text and tensors by name, and the byte where data starts."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorEntry]
    data_start: int

    @property
    def forms(self) -> dict[str, Description]:
        """Dtype and shape of each tensor."""
        return {name: entry.form for name, entry in self.tensors.items()}

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.data_start + max((entry.end for entry in self.tensors.values()), default=0)

    def slices(self, data: memoryview) -> dict[str, memoryview]:
        """The bytes of each tensor in those of the file, where they lie."""
        own = data[self.data_start :]
        return {name: own[entry.start : entry.end] for name, entry in self.tensors.items()}


def byte_size(tensor: Description) -> int:
    """Bytes of a tensor of a dtype in `ITEM_BYTES`."""
    return math.prod(tensor[1]) * ITEM_BYTES[tensor[0]]


def digest_of(
    start: str, text: str, described: Mapping[str, Description], data: Mapping[str, Buffer]
) -> str:
    """SHA-256 over a text and tensors, each part preceded by its length."""
    digest = hashlib.sha256(f"{start}\n".encode())

    def add(part: Buffer) -> None:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    add(text.encode("utf-8"))
    for name in sorted(described):
        add(_text_of(name, described[name]))
        add(data[name])
    return digest.hexdigest()


@functools.lru_cache
def _text_of(name: str, described: Description) -> bytes:
    return write_canonical([name, described[0], list(described[1])]).encode("utf-8")


def write_index(metadata: Mapping[str, str], tensors: Mapping[str, Description]) -> bytes:
    """The bytes that come before the data of the tensors, which follows in their order.

    A MemoryFileError if they are more than safetensors readers accept.
    """
    index: dict[str, Any] = {_METADATA: dict(metadata)}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + byte_size((dtype, shape))
        index[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = write_canonical(index).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_INDEX_BYTES:
        raise MemoryFileError(
            "The memory has too many spans for one file.",
            got=f"a header of {len(text)} bytes",
            expected=f"<= {MAX_INDEX_BYTES} bytes",
            fix="Save its documents in several files.",
        )
    return _LENGTH.pack(len(text)) + text


def read_index(stream: BinaryIO, *, size: int, where: str) -> Index:
    """Read and check the index of a file of `size` bytes, and nothing after it.

    A MemoryFileError if it is not a safetensors file, is cut off, or its index is damaged. Whether
    the tensors fill the file is for `check_extent`.
    """
    start = stream.read(_LENGTH.size + 1)
    length = _LENGTH.unpack(start[: _LENGTH.size])[0] if len(start) > _LENGTH.size else 0
    if not 2 <= length <= MAX_INDEX_BYTES or start[_LENGTH.size :] != b"{":
        raise MemoryFileError(
            f"{where} is not a memory file.",
            got=f"a file that starts with {start!r}",
            expected="a safetensors file",
            fix=NAME_ANOTHER,
        )
    data_start = _LENGTH.size + length
    text = start[_LENGTH.size :] + stream.read(length - 1)
    if len(text) < length:
        raise truncated(where, got=size, expected=f"at least {data_start}")
    try:
        raw = read_strict(text.decode("utf-8"))
        metadata = raw.pop(_METADATA, {})
        tensors = {name: _entry(entry) for name, entry in raw.items()}
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise ValueError("its metadata is not text by key")
    except ValueError as error:
        raise damaged(where, f"its index cannot be read: {error}") from error
    return Index(metadata=metadata, tensors=tensors, data_start=data_start)


def _entry(raw: object) -> TensorEntry:
    """One line of the index; a ValueError if it does not describe a tensor."""
    if not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("a tensor is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or not _is_counts(shape) or not _is_counts(offsets):
        raise ValueError("a tensor is described by values of the wrong type")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError("a tensor has no start and end")
    return TensorEntry(form=(dtype, tuple(shape)), start=offsets[0], end=offsets[1])


def _is_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def check_extent(index: Index, *, size: int, where: str) -> None:
    """Check that the tensors, of dtypes in `ITEM_BYTES`, follow each other and fill the file.

    A MemoryFileError if it is cut off, goes on after the last tensor, or a tensor has another size
    than its shape says.
    """
    end = 0
    for name, entry in sorted(index.tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            raise damaged(where, f"tensor {name!r} starts at {entry.start} instead of {end}")
        end = entry.end
        if end - entry.start != byte_size(entry.form):
            raise damaged(where, f"tensor {name!r} has another size than its shape says")
    if size < index.size:
        raise truncated(where, got=size, expected=str(index.size))
    if size > index.size:
        raise damaged(where, f"{size - index.size} bytes follow the last tensor")


def truncated(where: str, *, got: int, expected: str) -> MemoryFileError:
    """The error for a file that is cut off; sizes in bytes."""
    return MemoryFileError(
        f"{where} is truncated.", got=f"{got} bytes", expected=f"{expected} bytes", fix=COPY_AGAIN
    )


def damaged(where: str, detail: str) -> MemoryFileError:
    """The error for a file whose content contradicts itself: what is wrong in which file."""
    return MemoryFileError(f"{where} is damaged.", got=detail, fix=COPY_AGAIN)
