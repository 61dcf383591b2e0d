"""Memories as bytes: the content of an ``.icae`` file, without the file."""

from __future__ import annotations

import tempfile
from pathlib import Path

from icae.errors import MemoryFileError
from icae.memory import Memory, load_memory, save_memory

_NAME = "memory.icae"


def encode_memory(memory: Memory) -> bytes:
    """The bytes that a memory has as a file.

    Args:
        memory: The memory.

    Raises:
        MemoryFileError: If it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="icae-") as folder:
        path = Path(folder) / _NAME
        save_memory(memory, path)
        return path.read_bytes()


def decode_memory(data: bytes, *, where: str) -> Memory:
    """Read a memory from bytes and check all of it.

    Args:
        data: The content of an ``.icae`` file.
        where: Where they are from, for messages.

    Raises:
        MemoryFileError: If they are not a sound memory.
    """
    with tempfile.TemporaryDirectory(prefix="icae-") as folder:
        path = Path(folder) / _NAME
        try:
            path.write_bytes(data)
            return load_memory(path)
        except MemoryFileError as error:
            raise MemoryFileError(
                error.message.replace(str(path), where),
                got=error.got,
                expected=error.expected,
                fix=error.fix,
            ) from error
        except OSError as error:
            raise MemoryFileError(
                f"{where} cannot be unpacked.",
                got=str(error.strerror or error),
                fix=f"Free some space in {tempfile.gettempdir()}.",
            ) from error
