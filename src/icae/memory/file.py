"""The memory file: written, read, or its header alone; only here do rows have offsets.

A file is a safetensors container: one tensor for each form of payload, more where there
are measured tokens or text, and four lines of metadata. ``docs/memory-format.md``
specifies it. Written is version 3; versions 1 and 2 are read, too.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

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
from icae.memory.content import MemoryContent
from icae.memory.fidelity import TokenFidelity, join_token_fidelity
from icae.memory.header import MemoryHeader, parse_header, write_header
from icae.memory.payload import STORED_FORMS
from icae.memory.source_text import pack_source, unpack_source
from icae.memory.span import Span
from icae.memory.strict_json import write_canonical

FORMAT = "icae-memory"
FORMAT_VERSION = 3

_REPRODUCED = "reproduced"
_CONFIDENCE = "confidence"
_SOURCE = "source_zstd"
_METADATA_KEYS = {"format", "format_version", "header", "sha256"}


def write(memory: MemoryContent, path: str | Path) -> None:
    """Write a memory to a file, completely or not at all.

    The same memory gives the same bytes. Slots stored as bfloat16 are rounded to the
    nearest, ties to even; those that are bfloat16 values already are stored exactly.

    Args:
        memory: The memory, its payloads read.
        path: File to write; one that exists is replaced.

    Raises:
        MemoryFileError: If it cannot be written; a file that was there is untouched.
    """
    path = Path(path)
    content = parts(memory)
    try:
        if path.exists() and not path.is_file():
            raise MemoryFileError(
                f"Cannot write the memory to {path}.",
                got="a folder or device",
                expected="the path of a file",
                fix="Name a file, for example notes.icae.",
            )
        write_atomically(path, content)
    except (OSError, ValueError) as error:
        raise MemoryFileError(
            f"Cannot write the memory to {path}.", got=_reason(error), fix=_write_fix(path, error)
        ) from error


def parts(memory: MemoryContent) -> list[bytes]:
    """The content of the file of a memory, in order.

    Raises:
        MemoryFileError: If it cannot be written.
    """
    _require_stored(memory)
    payloads = [span.payload for span in memory.spans]
    tensors: dict[str, Tensor] = {}
    for form in STORED_FORMS.values():
        own = form.gather(payloads, memory.provenance)
        if own.positions or not form.may_lack_tensor:
            tensors[form.tensor] = own.pack(memory.provenance)
    fidelity = join_token_fidelity([span.token_fidelity for span in memory.spans])
    if fidelity is not None:
        tensors[_REPRODUCED] = _bytes(np.packbits(fidelity.reproduced, bitorder="little").tobytes())
        tensors[_CONFIDENCE] = _bytes(fidelity.confidence.tobytes())
    source_bytes = None
    sources = [document.source for document in memory.documents]
    if any(source is not None for source in sources):
        data, source_bytes = pack_source(sources)
        tensors[_SOURCE] = _bytes(data)
    header = write_header(
        memory, source_bytes=source_bytes, has_token_fidelity=fidelity is not None
    )
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "header": header,
        "sha256": _digest(FORMAT_VERSION, header, tensors),
    }
    return [write_index(metadata, tensors), *(tensor.data for tensor in tensors.values())]


def _require_stored(memory: MemoryContent) -> None:
    others = sorted({span.kind for span in memory.spans} - set(STORED_FORMS))
    if others:
        raise MemoryFileError(
            "Memories of this adapter cannot be kept in a file yet.",
            got=f"spans of {', '.join(others)}",
            expected=f"spans of {' or '.join(STORED_FORMS)} (format version {FORMAT_VERSION})",
            fix="Compress and ask in one process, or use an adapter with "
            "model.memory: embeddings, such as the shipped one.",
        )


def _bytes(data: bytes) -> Tensor:
    return Tensor(dtype="U8", shape=(len(data),), data=data)


def read(path: str | Path) -> MemoryContent:
    """Read a memory from a file and check all of it.

    Raises:
        MemoryFileError: If the file is missing, cannot be read, is not a memory file, is
            truncated or changed, or is of a newer format.
    """
    with _opened(Path(path)) as file:
        return file.content()


def from_bytes(data: bytes, *, where: str, max_source_bytes: int) -> MemoryContent:
    """Read a memory from the content of a file and check all of it.

    Raises:
        MemoryFileError: As for `read`; if its text is longer than allowed.
    """
    file = _checked(io.BytesIO(data), size=len(data), where=where)
    declared = file.header.source_bytes or 0
    if declared > max_source_bytes:
        raise MemoryFileError(
            f"{where} holds too much text.",
            got=f"{declared:,} bytes",
            expected=f"at most {max_source_bytes:,}",
        )
    return file.content()


def read_header(path: str | Path) -> MemoryHeader:
    """Read what a memory file says about itself, without its tensors.

    Whether slots, tokens and text are intact is not checked; `read` does that.

    Raises:
        MemoryFileError: If the file is missing, cannot be read, is not a memory file, is
            truncated, is of a newer format, or its header is damaged.
    """
    with _opened(Path(path)) as file:
        return file.header


@dataclass(frozen=True, kw_only=True)
class _OpenFile:
    """A memory file whose index and header were read and checked."""

    stream: BinaryIO
    where: str
    index: Index
    header: MemoryHeader

    def content(self) -> MemoryContent:
        """The memory in it, all of it checked."""
        tensors = {
            name: read_tensor(self.stream, self.index, name, where=self.where)
            for name in self.index.tensors
        }
        metadata = self.index.metadata
        digest = _digest(self.header.format_version, metadata["header"], tensors)
        if digest != metadata["sha256"]:
            raise MemoryFileError(
                f"{self.where} was damaged or changed after it was written.",
                got="content that does not match its SHA-256",
                fix="Copy the file again, or compress the documents again.",
            )
        try:
            return _content(self.header, tensors)
        except ConfigError as error:
            raise _inconsistent(self.where, error) from error
        except ValueError as error:
            raise damaged(self.where, str(error)) from error


def _content(header: MemoryHeader, tensors: Mapping[str, Tensor]) -> MemoryContent:
    """The documents of a header with the payloads, fidelity and text that tensors hold.

    Raises:
        ConfigError: If header and content do not fit together.
        ValueError: If a tensor is damaged.
    """
    sources: list[str | None] = [None] * len(header.documents)
    if header.source_bytes is not None:
        sources = unpack_source(
            tensors[_SOURCE].data, source_bytes=header.source_bytes, documents=len(sources)
        )
    stored = {
        kind: form.unpack(tensors[form.tensor])
        for kind, form in STORED_FORMS.items()
        if form.tensor in tensors
    }
    fidelity = _fidelity(tensors) if header.has_token_fidelity else None
    rows, token = dict.fromkeys(STORED_FORMS, 0), 0
    spans: list[Span] = []
    for span in header.spans:
        row, end = rows[span.kind], token + span.tokens
        measured = TokenFidelity.of_verbatim(span.tokens) if span.kind == "tokens" else None
        if fidelity is not None:
            measured = fidelity.part(token, end)
        payload = stored[span.kind].part(row, row + span.positions)
        spans.append(replace(span, payload=payload, token_fidelity=measured))
        rows[span.kind], token = row + span.positions, end
    own = iter(spans)
    documents = [
        replace(document, spans=tuple(islice(own, len(document.spans))), source=source)
        for document, source in zip(header.documents, sources, strict=True)
    ]
    return MemoryContent(
        documents=tuple(documents), provenance=header.provenance, created_by=header.created_by
    )


def _fidelity(tensors: Mapping[str, Tensor]) -> TokenFidelity:
    """The fidelity of every token.

    Raises:
        ValueError: If a bit is set that stands for no token.
    """
    confidence = np.frombuffer(tensors[_CONFIDENCE].data, dtype=np.uint8).copy()
    packed = np.frombuffer(tensors[_REPRODUCED].data, dtype=np.uint8)
    bits = np.unpackbits(packed, bitorder="little").astype(np.bool_)
    if bits[len(confidence) :].any():
        raise ValueError("a token is marked as reproduced that does not exist")
    return TokenFidelity(reproduced=bits[: len(confidence)].copy(), confidence=confidence)


@contextmanager
def _opened(path: Path) -> Iterator[_OpenFile]:
    """Open a memory file; every way in which that or reading can fail is a MemoryFileError."""
    where = str(path)
    try:
        # A pipe would block, and opening a device can have effects: look first.
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise MemoryFileError(
                f"{where} is not a file.",
                got="a folder" if stat.S_ISDIR(mode) else "a pipe or device",
                expected="the path of an .icae file",
                fix="Give the path of a file that `icae compress` wrote.",
            )
        with path.open("rb") as stream:
            yield _checked(stream, size=os.fstat(stream.fileno()).st_size, where=where)
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
    version = _version(index, where=where)
    if set(index.metadata) != _METADATA_KEYS:
        raise damaged(where, f"its metadata has the keys {', '.join(sorted(index.metadata))}")
    try:
        header = parse_header(index.metadata["header"], version=version, file_bytes=size)
    except ConfigError as error:
        raise _inconsistent(where, error) from error
    expected = _expected_tensors(header, index)
    found = {name: (entry.dtype, entry.shape) for name, entry in index.tensors.items()}
    if found != expected:
        raise damaged(where, f"tensors {_shown(found)} where the header says {_shown(expected)}")
    check_extent(index, size=size, where=where)
    return _OpenFile(stream=stream, where=where, index=index, header=header)


def _version(index: Index, *, where: str) -> int:
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


def _expected_tensors(header: MemoryHeader, index: Index) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each tensor that a file with this header has to have."""
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for kind, form in STORED_FORMS.items():
        positions = sum(span.positions for span in header.spans if span.kind == kind)
        if positions or not form.may_lack_tensor:
            expected[form.tensor] = form.stored(positions, header.provenance)
    if header.has_token_fidelity:
        expected[_REPRODUCED] = ("U8", (-(-header.tokens // 8),))
        expected[_CONFIDENCE] = ("U8", (header.tokens,))
    if header.source_bytes is not None:
        source = index.tensors.get(_SOURCE)
        expected[_SOURCE] = ("U8", (source.end - source.start,) if source else ())
    return expected


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
    return damaged(
        where, detail if error.expected is None else f"{detail}, expected {error.expected}"
    )


def _shown(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in tensors.items())


def _reason(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)


def _write_fix(path: Path, error: OSError | ValueError) -> str:
    if not path.parent.is_dir():
        return f"Create the folder {path.parent} first."
    if isinstance(error, PermissionError):
        return f"Choose a folder that you may write to instead of {path.parent}."
    return "Free some disk space or choose another place."
