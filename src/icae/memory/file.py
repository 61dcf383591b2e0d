"""The memory file: written, read, or its header alone; only here do rows have offsets.

A file is a safetensors container: tensors for each form of payload, more where there
are measured tokens or text, and four lines of metadata. ``docs/memory-format.md``
specifies it. Written is version 4; versions 1 to 3 are read, too.

A file is mapped, not read: keys and values stay where they lie until a decoder wants them.
"""

from __future__ import annotations

import io
import mmap
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from icae.config.atomic_write import write_atomically
from icae.errors import ConfigError, MemoryFileError
from icae.memory.container import (
    COPY_AGAIN,
    FORMAT,
    FORMAT_VERSION,
    NAME_ANOTHER,
    Buffer,
    Description,
    Index,
    byte_size,
    check_extent,
    damaged,
    digest_of,
    read_index,
    truncated,
    write_index,
)
from icae.memory.fidelity import TokenFidelity
from icae.memory.forms import FORMS
from icae.memory.header import MemoryHeader, parse_header, write_header
from icae.memory.memory import Memory
from icae.memory.payload import ReadablePayload
from icae.memory.sealing import payload_tensors, span_digest
from icae.memory.source_text import MAX_SOURCE_BYTES, pack_source, unpack_source
from icae.memory.span import Span

_REPRODUCED = "reproduced"
_CONFIDENCE = "confidence"
_SOURCE = "source_zstd"
_METADATA_KEYS = {"format", "format_version", "header", "sha256"}


def write(memory: Memory, path: str | Path) -> None:
    """Write a memory to a file, completely or not at all; one that exists is replaced.

    A MemoryFileError if it cannot be written; a file that was there is then untouched.
    """
    path = Path(path)
    content = _parts(memory)
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
        fix = "Free some disk space or choose another place."
        if not path.parent.is_dir():
            fix = f"Create the folder {path.parent} first."
        elif isinstance(error, PermissionError):
            fix = f"Choose a folder that you may write to instead of {path.parent}."
        raise MemoryFileError(
            f"Cannot write the memory to {path}.", got=_reason(error), fix=fix
        ) from error


def memory_bytes(memory: Memory) -> bytes:
    """The bytes that `Memory.save` would write; a MemoryFileError if it cannot.

    The same memory gives the same bytes. Slots stored as bfloat16 are rounded to the
    nearest, ties to even; those that are bfloat16 values already are stored exactly.
    """
    return b"".join(_parts(memory))


def memory_size(memory: Memory) -> int:
    """How many bytes `memory_bytes` gives, from the header and the sizes of what spans hold."""
    index, others = _index(memory, ["0" * 64] * len(memory.spans))
    held = sum(map(byte_size, payload_tensors(memory).values()))
    return len(index) + held + sum(map(len, others.values()))


def _parts(memory: Memory) -> list[Buffer]:
    """The content of the file of a memory, in order."""
    data: dict[str, list[Buffer]] = {name: [] for name in payload_tensors(memory)}
    digests: list[str] = []
    for span in memory.spans:
        assert isinstance(span.payload, ReadablePayload)
        own = span.payload.pack(memory.provenance)
        digests.append(span_digest(span, memory.provenance, own))
        for name, packed in own.items():
            data[name].append(packed)
    index, others = _index(memory, digests)
    return [index, *(part for own in data.values() for part in own), *others.values()]


def _index(memory: Memory, digests: Sequence[str]) -> tuple[bytes, dict[str, Buffer]]:
    """What the file begins with, by the digests of the spans, and what follows their payloads."""
    others: dict[str, Buffer] = {}
    fidelity = memory.token_fidelity
    if fidelity is not None:
        others[_REPRODUCED] = np.packbits(fidelity.reproduced, bitorder="little").tobytes()
        others[_CONFIDENCE] = fidelity.confidence.tobytes()
    source_bytes = None
    sources = [document.source for document in memory.documents]
    if any(source is not None for source in sources):
        others[_SOURCE], source_bytes = pack_source(sources)
    header = write_header(
        memory,
        source_bytes=source_bytes,
        has_token_fidelity=fidelity is not None,
        span_sha256=digests,
    )
    described = {name: ("U8", (len(packed),)) for name, packed in others.items()}
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "header": header,
        "sha256": digest_of(f"{FORMAT}/{FORMAT_VERSION}", header, described, others),
    }
    return write_index(metadata, payload_tensors(memory) | described), others


def read(path: str | Path) -> Memory:
    """Read a memory from a file and check all of it.

    A MemoryFileError if it is missing, cannot be read, is not a memory file, is truncated or
    changed, or is of a newer format.
    """
    with _opened(Path(path)) as (stream, index, header):
        # Closed with the last view of it.
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return _memory(index, header, memoryview(mapped), str(path))


def memory_from_bytes(
    data: bytes, *, where: str, max_source_bytes: int = MAX_SOURCE_BYTES
) -> Memory:
    """Read a memory from the content of a file and check all of it.

    At most `max_source_bytes` of text, decompressed: a small file may hold very much. A
    MemoryFileError as for `Memory.load`, and if its text is longer.
    """
    index, header = _checked(io.BytesIO(data), size=len(data), where=where)
    declared = header.source_bytes or 0
    if declared > max_source_bytes:
        raise MemoryFileError(
            f"{where} holds too much text.",
            got=f"{declared:,} bytes",
            expected=f"at most {max_source_bytes:,}",
        )
    return _memory(index, header, memoryview(data), where)


def read_header(path: str | Path) -> MemoryHeader:
    """Read what a memory file says about itself, without its tensors.

    Whether slots, tokens and text are intact is not checked; `Memory.load` does that. A
    MemoryFileError as there.
    """
    with _opened(Path(path)) as (_, _, header):
        return header


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Index, MemoryHeader]]:
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
                fix=NAME_ANOTHER,
            )
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            yield stream, *_checked(stream, size=size, where=where)
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


def _reason(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)


def _checked(stream: BinaryIO, *, size: int, where: str) -> tuple[Index, MemoryHeader]:
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
    if index.forms != expected:
        found, wanted = _shown(index.forms), _shown(expected)
        raise damaged(where, f"tensors {found} where the header says {wanted}")
    check_extent(index, size=size, where=where)
    return index, header


def _version(index: Index, *, where: str) -> int:
    """The version of the format; foreign files and newer formats are told from damaged ones."""
    name = index.metadata.get("format")
    if name != FORMAT:
        raise MemoryFileError(
            f"{where} is a safetensors file, but not a memory.",
            got=f"format {name!r}, tensors {sorted(index.tensors)}",
            expected=f"format {FORMAT!r}",
            fix=NAME_ANOTHER,
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


def _expected_tensors(header: MemoryHeader, index: Index) -> dict[str, Description]:
    """Dtype and shape of each tensor that a file with this header has to have."""
    expected = payload_tensors(header)
    if header.format_version < 4:
        expected = FORMS["slots"].tensors(0, header.provenance) | expected
    if header.has_token_fidelity:
        expected[_REPRODUCED] = ("U8", (-(-header.tokens // 8),))
        expected[_CONFIDENCE] = ("U8", (header.tokens,))
    if header.source_bytes is not None:
        source = index.tensors.get(_SOURCE)
        expected[_SOURCE] = ("U8", (source.end - source.start,) if source else ())
    return expected


def _shown(tensors: Mapping[str, Description]) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in tensors.items())


def _inconsistent(where: str, error: ConfigError) -> MemoryFileError:
    detail = error.message if error.got is None else f"{error.message} ({error.got})"
    return damaged(
        where, detail if error.expected is None else f"{detail}, expected {error.expected}"
    )


def _memory(index: Index, header: MemoryHeader, data: memoryview, where: str) -> Memory:
    """The memory in the bytes of a file whose index and header are sound; the rest is checked."""
    if len(data) < index.size:
        raise truncated(where, got=len(data), expected=str(index.size))
    tensors, metadata = index.slices(data), index.metadata
    # Of what spans hold, version 4 has digests apart.
    apart = set(payload_tensors(header)) if header.span_sha256 else set()
    sealed = {name: form for name, form in index.forms.items() if name not in apart}
    start = f"{FORMAT}/{header.format_version}"
    if digest_of(start, metadata["header"], sealed, tensors) != metadata["sha256"]:
        raise _changed(where, "content that does not match its SHA-256")
    try:
        own, sources = iter(_spans(header, tensors, where)), _sources(header, tensors)
        documents = [
            replace(document, spans=tuple(islice(own, len(document.spans))), source=source)
            for document, source in zip(header.documents, sources, strict=True)
        ]
        return Memory(
            documents=tuple(documents),
            provenance=header.provenance,
            created_by=header.created_by,
        )
    except ConfigError as error:
        raise _inconsistent(where, error) from error
    except ValueError as error:
        raise damaged(where, str(error)) from error


def _changed(where: str, got: str) -> MemoryFileError:
    return MemoryFileError(
        f"{where} was damaged or changed after it was written.", got=got, fix=COPY_AGAIN
    )


def _sources(header: MemoryHeader, tensors: Mapping[str, memoryview]) -> list[str | None]:
    """The text of each document; a ValueError if it is damaged."""
    count, size = len(header.documents), header.source_bytes
    if size is None:
        return [None] * count
    return unpack_source(bytes(tensors[_SOURCE]), source_bytes=size, documents=count)


def _spans(header: MemoryHeader, tensors: Mapping[str, memoryview], where: str) -> Iterator[Span]:
    """The spans with what they hold: their rows of the tensors, checked against their digests."""
    fidelity = _fidelity(tensors) if header.has_token_fidelity else None
    at: dict[str, int] = defaultdict(int)
    token = 0
    for number, span in enumerate(header.spans):
        form = FORMS[span.kind]
        own: dict[str, Buffer] = {}
        for name, description in form.tensors(span.positions, header.provenance).items():
            start, at[name] = at[name], at[name] + byte_size(description)
            own[name] = tensors[name][start : at[name]]
        if header.span_sha256:
            digest = span_digest(span, header.provenance, own)
            if digest != header.span_sha256[number]:
                raise _changed(where, f"span {number}, which does not match its SHA-256")
        measured = TokenFidelity.of_verbatim(span.tokens) if span.kind == "tokens" else None
        if fidelity is not None:
            measured = fidelity.part(token, token + span.tokens)
        token += span.tokens
        payload = form.unpack(own, header.provenance)
        if header.span_sha256:
            payload.known_by(header.span_sha256[number])
        yield replace(span, payload=payload, token_fidelity=measured)


def _fidelity(tensors: Mapping[str, memoryview]) -> TokenFidelity:
    """The fidelity of every token; a ValueError if a bit is set that stands for no token."""
    confidence = np.frombuffer(tensors[_CONFIDENCE], dtype=np.uint8).copy()
    packed = np.frombuffer(tensors[_REPRODUCED], dtype=np.uint8)
    bits = np.unpackbits(packed, bitorder="little").astype(np.bool_)
    if bits[len(confidence) :].any():
        raise ValueError("a token is marked as reproduced that does not exist")
    return TokenFidelity(reproduced=bits[: len(confidence)].copy(), confidence=confidence)
