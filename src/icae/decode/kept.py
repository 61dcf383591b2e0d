"""What took long to make, kept for the next time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """What was used last, within a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self.bytes = 0

    def get(self, name: str) -> T | None:
        """What was kept under a name, if anything."""
        if name not in self._kept:
            return None
        self._kept.move_to_end(name)
        return self._kept[name][0]

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """All names, and what is kept under them."""
        return ((name, kept) for name, (kept, _) in self._kept.items())

    def keep(self, name: str, size: int, give: Callable[[], T]) -> None:
        """Keep something, in place of what was not used for longest.

        Args:
            name: What it is asked for by, such as the digest of a memory.
            size: Bytes of what is kept.
            give: Gives it, its own copy; called only if it is kept.
        """
        if name in self._kept or size > self._max_bytes:
            return
        self._kept[name] = (give(), size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            self.drop(next(iter(self._kept)))

    def drop(self, name: str) -> None:
        """Let go of what was kept under a name."""
        self.bytes -= self._kept.pop(name)[1]
