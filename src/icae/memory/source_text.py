"""The text of the documents, compressed with Zstandard.

Text and declared size come from a file that anyone may have written: decompression
stops as soon as it yields more than was declared, and the window is bounded.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import zstandard

from icae.errors import MemoryFileError
from icae.memory.strict_json import read_strict, write_canonical

MAX_SOURCE_BYTES = 2**30
"""Most bytes of text, as JSON, in one memory file."""

MAX_WINDOW_BYTES = 2**23
"""Largest Zstandard window; a reader needs no more memory than this."""

_LEVEL = 9
_PIECE_BYTES = 2**20


def pack_source(sources: Sequence[str | None]) -> tuple[bytes, int]:
    """The text of each document (or None) as one Zstandard frame, and its size before, bytes.

    A MemoryFileError if the text is too long for one file.
    """
    text = write_canonical(list(sources)).encode("utf-8")
    if len(text) > MAX_SOURCE_BYTES:
        raise MemoryFileError(
            "The source text is too long for one memory file.",
            got=f"{len(text)} bytes",
            expected=f"<= {MAX_SOURCE_BYTES} bytes",
            fix="Save the memory without its source, or its documents in several files.",
        )
    return zstandard.ZstdCompressor(level=_LEVEL).compress(text), len(text)


def unpack_source(data: bytes, *, source_bytes: int, documents: int) -> list[str | None]:
    """The text of each document, or None, from a frame of a declared size in bytes.

    A ValueError if the data is no such frame, yields more or less than declared, or is not a list
    of that many texts.
    """
    if source_bytes > MAX_SOURCE_BYTES:
        raise ValueError(f"{source_bytes} bytes of text declared, at most {MAX_SOURCE_BYTES}")
    sources = read_strict(_decompress(data, source_bytes).decode("utf-8"))
    if (
        not isinstance(sources, list)
        or len(sources) != documents
        or not all(source is None or isinstance(source, str) for source in sources)
    ):
        raise ValueError(f"the text is not a list of {documents} texts")
    return sources


def _decompress(data: bytes, limit: int) -> bytes:
    """Decompress exactly `limit` bytes, never holding more than one piece beyond them."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    text = bytearray()
    try:
        with decompressor.stream_reader(io.BytesIO(data)) as stream:
            # One byte more than the limit is asked for, to see whether there is more.
            while piece := stream.read(min(_PIECE_BYTES, limit + 1 - len(text))):
                text += piece
                if len(text) > limit:
                    raise ValueError(f"the text is longer than the {limit} bytes declared")
    except zstandard.ZstdError as error:
        raise ValueError(f"the text cannot be decompressed: {error}") from error
    if len(text) < limit:
        raise ValueError(f"the text has {len(text)} bytes, {limit} declared")
    return bytes(text)
