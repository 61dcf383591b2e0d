"""Changing a memory file: one process at a time, and never over what somebody else wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from icae.errors import MemoryFileError
from icae.memory.memory import Memory

LOCK_TIMEOUT_S = 60.0
"""How long another process that changes the file is waited for, s."""


class LockedFile:
    """A memory file that this process alone changes; see `locked`.

    Attributes:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = _version(path)

    def load(self) -> Memory:
        """Read the memory; a MemoryFileError as for `Memory.load`."""
        return Memory.load(self.path)

    def save(self, memory: Memory) -> None:
        """Write the memory, unless the file is no longer the one that was locked or saved last.

        A MemoryFileError if a program that knows no locks changed the file, which is then left as
        it is; or as for `Memory.save`.
        """
        if _version(self.path) != self._version:
            raise MemoryFileError(
                f"{self.path} was changed by another program in the meantime.",
                got="another file than the one that was read",
                expected="the file as it was when this change began",
                fix="Nothing was written. Do the change again, or write it elsewhere (--output).",
            )
        memory.save(self.path)
        self._version = _version(self.path)


@contextmanager
def locked(path: str | Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[LockedFile]:
    """Change a memory file while no other process does: ``file.save(change(file.load()))``.

    The lock is a hidden file beside it, which is gone afterwards; the memory file need not exist
    yet.

    Raises:
        MemoryFileError: If another process holds it for longer than `timeout_s`, or no lock can be
            made there.
    """
    path = Path(path)
    hidden = path.with_name(f".{path.name}.lock")
    lock = FileLock(hidden, timeout=timeout_s, poll_interval=0.02)
    try:
        path.parent.stat()  # the lock would make a folder that is missing
        lock.acquire()
    except Timeout as error:
        raise MemoryFileError(
            f"{path} is being changed by another process.",
            got=f"locked for more than {timeout_s:g} s",
            fix="Try again when the other process is done; nothing was changed.",
        ) from error
    except OSError as error:
        raise MemoryFileError(
            f"{path} cannot be locked to change it.",
            got=str(error.strerror or error),
            expected="a folder that exists and that you may write to",
        ) from error
    try:
        yield LockedFile(path)
    finally:
        with suppress(OSError):
            hidden.unlink()  # who waits for it sees that it is gone, and locks anew
        lock.release()


def _version(path: Path) -> tuple[int, int, int] | None:
    """What tells one content of a file from the next; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
