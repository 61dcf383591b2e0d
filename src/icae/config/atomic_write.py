"""Write a file so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)


def write_atomically(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write the parts of a file, which replaces one that is there, or leave all as it was.

    The bytes go to a temporary file in the same folder, are flushed to disk, and only then take the
    place of ``path``. An OSError if it cannot be written; the temporary file is then gone.
    """
    temporary = path.parent / f".icae-{secrets.token_hex(8)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for part in parts:
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)  # noqa: PTH105 (named as the system call that is atomic)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make the new name durable; the file itself is complete even where this fails."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        logger.warning("The folder %s could not be flushed to disk: %s", folder, error)
