"""The memory file: save, load, and read the header alone.

A file is a safetensors container with the tensor ``slots``, more tensors where there are
verbatim tokens, measured tokens or text, and four lines of metadata.
``docs/memory-format.md`` specifies it. Written is version 3; versions 1 and 2 are read, too.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from icae.errors import ConfigError, MemoryFileError
from icae.memory.atomic_write import write_atomically
from icae.memory.container import (
    Index,
    Tensor,
    check_extent,
    damaged,
    read_index,
    read_tensor,
    write_index,
)
from icae.memory.header import HeaderRecord, MemoryHeader, parse_header, write_header
from icae.memory.memory import Memory
from icae.memory.source_text import MAX_SOURCE_BYTES, pack_source, unpack_source
from icae.memory.strict_json import write_canonical
from icae.memory.tensors import (
    expected_arrays,
    pack_arrays,
    unpack_fidelity,
    unpack_slots,
    unpack_verbatim,
)

FORMAT = "icae-memory"
FORMAT_VERSION = 3

_SOURCE = "source_zstd"
_METADATA_KEYS = {"format", "format_version", "header", "sha256"}


@dataclass(frozen=True, kw_only=True)
class _OpenFile:
    """A memory file whose index and header were read and checked."""

    stream: BinaryIO
    where: str
    size: int
    index: Index
    header: HeaderRecord
    version: int


def save_memory(memory: Memory, path: str | Path) -> None:
    """Write a memory to a file, completely or not at all.

    The same memory gives the same bytes. Slots stored as bfloat16 are rounded to the
    nearest, ties to even; those that are bfloat16 values already are stored exactly.

    Args:
        memory: The memory.
        path: File to write, by convention with the suffix ``.icae``; one that exists is
            replaced.

    Raises:
        MemoryFileError: If it cannot be written; a file that was there is untouched.
    """
    path = Path(path)
    parts = _parts(memory)
    try:
        if path.exists() and not path.is_file():
            raise MemoryFileError(
                f"Cannot write the memory to {path}.",
                got="a folder or device",
                expected="the path of a file",
                fix="Name a file, for example notes.icae.",
            )
        write_atomically(path, parts)
    except (OSError, ValueError) as error:
        raise MemoryFileError(
            f"Cannot write the memory to {path}.", got=_reason(error), fix=_write_fix(path, error)
        ) from error


def memory_bytes(memory: Memory) -> bytes:
    """The bytes that `save_memory` would write.

    Args:
        memory: The memory.

    Raises:
        MemoryFileError: If it cannot be written.
    """
    return b"".join(_parts(memory))


def _parts(memory: Memory) -> list[bytes]:
    """The content of the file of a memory, in order."""
    tensors = pack_arrays(memory)
    source_bytes = None
    if any(document.source is not None for document in memory.documents):
        data, source_bytes = pack_source([document.source for document in memory.documents])
        tensors[_SOURCE] = Tensor(dtype="U8", shape=(len(data),), data=data)
    header = write_header(memory, source_bytes=source_bytes)
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "header": header,
        "sha256": _digest(FORMAT_VERSION, header, tensors),
    }
    return [write_index(metadata, tensors), *(tensor.data for tensor in tensors.values())]


def load_memory(path: str | Path) -> Memory:
    """Read a memory from a file and check all of it.

    Args:
        path: A file that `save_memory` wrote.

    Returns:
        The memory, its slots as float32 whatever the file stores.

    Raises:
        MemoryFileError: If the file is missing, cannot be read, is not a memory file, is
            truncated or changed, or is of a newer format.
    """
    with _opened(Path(path)) as file:
        return _read(file)


def memory_from_bytes(
    data: bytes, *, where: str, max_source_bytes: int = MAX_SOURCE_BYTES
) -> Memory:
    """Read a memory from the content of a file and check all of it.

    Args:
        data: What `memory_bytes` returned or `save_memory` wrote.
        where: Where it is from, for messages.
        max_source_bytes: Most bytes of text, decompressed, that are read: a small file may
            hold very much.

    Raises:
        MemoryFileError: As for `load_memory`; if its text is longer than allowed.
    """
    file = _checked(io.BytesIO(data), size=len(data), where=where)
    declared = file.header.source_bytes or 0
    if declared > max_source_bytes:
        raise MemoryFileError(
            f"{where} holds too much text.",
            got=f"{declared:,} bytes",
            expected=f"at most {max_source_bytes:,}",
        )
    return _read(file)


def _read(file: _OpenFile) -> Memory:
    """The memory in a file, all of it checked."""
    tensors = {
        name: Tensor(
            dtype=entry.dtype,
            shape=entry.shape,
            data=read_tensor(file.stream, file.index, name, where=file.where),
        )
        for name, entry in file.index.tensors.items()
    }
    metadata = file.index.metadata
    if _digest(file.version, metadata["header"], tensors) != metadata["sha256"]:
        raise MemoryFileError(
            f"{file.where} was damaged or changed after it was written.",
            got="content that does not match its SHA-256",
            fix="Copy the file again, or compress the documents again.",
        )
    try:
        return _memory(file.header, tensors)
    except ConfigError as error:
        raise _inconsistent(file.where, error) from error
    except ValueError as error:
        raise damaged(file.where, str(error)) from error


def _memory(header: HeaderRecord, tensors: Mapping[str, Tensor]) -> Memory:
    """The memory in a file whose header fits its tensors.

    Raises:
        ConfigError: If header and content do not fit together.
        ValueError: If a tensor is damaged.
    """
    sources = None
    if header.source_bytes is not None:
        sources = unpack_source(
            tensors[_SOURCE].data,
            source_bytes=header.source_bytes,
            documents=len(header.documents),
        )
    return Memory(
        slots=unpack_slots(tensors),
        spans=header.spans,
        documents=header.with_sources(sources),
        provenance=header.provenance,
        created_by=header.created_by,
        verbatim_ids=unpack_verbatim(tensors),
        token_fidelity=unpack_fidelity(tensors),
    )


def read_header(path: str | Path) -> MemoryHeader:
    """Read what a memory file says about itself, without its tensors.

    Whether slots, tokens and text are intact is not checked; `load_memory` does that.

    Args:
        path: A file that `save_memory` wrote.

    Returns:
        The header.

    Raises:
        MemoryFileError: If the file is missing, cannot be read, is not a memory file, is
            truncated, is of a newer format, or its header is damaged.
    """
    with _opened(Path(path)) as file:
        header = file.header
        return MemoryHeader(
            documents=header.with_sources(None),
            spans=header.spans,
            provenance=header.provenance,
            created_by=header.created_by,
            has_source=header.source_bytes is not None,
            has_token_fidelity=header.token_fidelity,
            slot_count=header.slot_count,
            verbatim_tokens=header.verbatim_count,
            file_bytes=file.size,
            format_version=file.version,
        )


@contextmanager
def _opened(path: Path) -> Iterator[_OpenFile]:
    """Open a memory file; every way in which that or reading can fail is a MemoryFileError."""
    where = str(path)
    try:
        # A pipe would block, and opening a device can have effects: look first.
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
            raise MemoryFileError(
                f"{where} is not a file.",
                got=what,
                expected="the path of an .icae file",
                fix="Give the path of a file that `icae compress` wrote.",
            )
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            yield _checked(stream, size=size, where=where)
    except FileNotFoundError as error:
        raise MemoryFileError(
            f"There is no memory file {where}.",
            got="no such file",
            fix="Check the path, or make the file with `icae compress`.",
        ) from error
    except (OSError, ValueError) as error:
        raise MemoryFileError(
            f"The memory file {where} cannot be read.",
            got=_reason(error),
            fix="Check the path and its permissions.",
        ) from error


def _checked(stream: BinaryIO, *, size: int, where: str) -> _OpenFile:
    """The index and header of a file, read and checked."""
    if size == 0:
        raise MemoryFileError(
            f"{where} is empty.",
            got="0 bytes",
            expected="a memory file",
            fix="Compress the documents again.",
        )
    index = read_index(stream, size=size, where=where)
    version, header = _check_index(index, size=size, where=where)
    return _OpenFile(
        stream=stream, where=where, size=size, index=index, header=header, version=version
    )


def _check_index(index: Index, *, size: int, where: str) -> tuple[int, HeaderRecord]:
    """Check that an index is that of a sound memory file, and read its version and header."""
    version = _check_format(index, where=where)
    metadata = index.metadata
    if set(metadata) != _METADATA_KEYS:
        raise damaged(where, f"its metadata has the keys {', '.join(sorted(metadata))}")
    try:
        header = parse_header(metadata["header"], version=version)
    except ConfigError as error:
        raise _inconsistent(where, error) from error
    expected = _expected_tensors(header, index)
    found = {name: (entry.dtype, entry.shape) for name, entry in index.tensors.items()}
    if found != expected:
        raise damaged(where, f"tensors {_shown(found)} where the header says {_shown(expected)}")
    check_extent(index, size=size, where=where)
    return version, header


def _expected_tensors(header: HeaderRecord, index: Index) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each tensor that a file with this header has to have."""
    expected = expected_arrays(header)
    if header.source_bytes is not None:
        source = index.tensors.get(_SOURCE)
        expected[_SOURCE] = ("U8", (source.end - source.start,) if source else ())
    return expected


def _check_format(index: Index, *, where: str) -> int:
    """The version of the format; foreign files and newer formats are told from damaged ones."""
    name = index.metadata.get("format")
    if name != FORMAT:
        raise MemoryFileError(
            f"{where} is a safetensors file, but not a memory.",
            got=f"format {name!r}, tensors {sorted(index.tensors)}",
            expected=f"format {FORMAT!r}",
            fix="Give the path of a file that `icae compress` wrote.",
        )
    version = index.metadata.get("format_version", "")
    if not (version.isascii() and version.isdecimal()) or version[0] == "0" or len(version) > 9:
        raise damaged(where, f"format_version {version!r}")
    if int(version) > FORMAT_VERSION:
        raise MemoryFileError(
            f"{where} was written by a newer icae.",
            got=f"format version {version}",
            expected=f"format version {FORMAT_VERSION} or lower",
            fix="Upgrade: pip install --upgrade icae",
        )
    return int(version)


def _digest(version: int, header: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the header and every tensor, each part preceded by its length."""
    digest = hashlib.sha256(f"{FORMAT}/{version}\n".encode())

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    add(header.encode("utf-8"))
    for name, tensor in sorted(tensors.items()):
        add(write_canonical([name, tensor.dtype, list(tensor.shape)]).encode("utf-8"))
        add(tensor.data)
    return digest.hexdigest()


def _inconsistent(where: str, error: ConfigError) -> MemoryFileError:
    detail = error.message if error.got is None else f"{error.message} ({error.got})"
    if error.expected is not None:
        detail += f", expected {error.expected}"
    return damaged(where, detail)


def _shown(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in tensors.items())


def _reason(error: OSError | ValueError) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error)


def _write_fix(path: Path, error: OSError | ValueError) -> str:
    if not path.parent.is_dir():
        return f"Create the folder {path.parent} first."
    if isinstance(error, PermissionError):
        return f"Choose a folder that you may write to instead of {path.parent}."
    return "Free some disk space or choose another place."
