"""What was read of memories, kept for the next question."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class KeptFronts(Generic[T]):
    """Keys and values of the memories used last, within a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self.bytes = 0

    def get(self, digest: str) -> T | None:
        """What was kept of a memory, if anything."""
        if digest not in self._kept:
            return None
        self._kept.move_to_end(digest)
        return self._kept[digest][0]

    def keep(self, digest: str, size: int, give: Callable[[], T]) -> None:
        """Keep what was read of a memory, in place of what was not used for longest.

        Args:
            digest: The memory's.
            size: Bytes of what is kept.
            give: Gives it, its own copy; called only if it is kept.
        """
        if digest in self._kept or size > self._max_bytes:
            return
        self._kept[digest] = (give(), size)
        self.bytes += size
        while self.bytes > self._max_bytes:
            _, (_, dropped) = self._kept.popitem(last=False)
            self.bytes -= dropped
