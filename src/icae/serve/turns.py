"""Work that waits, by the key that it is for: keys take turns, work of one key goes in order."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class Owned(Protocol):
    """Work for an owner."""

    @property
    def owner(self) -> str:
        """Whose work it is."""
        ...


W = TypeVar("W", bound=Owned)


class Turns(Generic[W]):
    """A queue in which an owner with much work is no reason for another one to wait.

    Args:
        most: How much may wait. One owner may have all of it, until others come: these are
            let in as long as they have less than their part, so at most twice as much waits.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._queues: OrderedDict[str, deque[W]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[W]:
        return (work for queue in self._queues.values() for work in queue)

    @property
    def owners(self) -> int:
        """How many have work that waits."""
        return len(self._queues)

    def of(self, owner: str) -> int:
        """How much work of an owner waits."""
        return len(self._queues.get(owner, ()))

    def room_for(self, owner: str, *, under_way: int = 0) -> bool:
        """Whether more work of an owner may wait, beside some that is under way."""
        waiting = len(self) + under_way
        if waiting < self._most:
            return True
        owners = len(self._queues.keys() | {owner})
        return waiting < 2 * self._most and self.of(owner) < self._most // owners

    def add(self, work: W) -> None:
        """Let work wait behind all other of its owner."""
        self._queues.setdefault(work.owner, deque()).append(work)

    def next(self, *, may: Callable[[str], bool] = lambda _: True) -> W | None:
        """The first work of the owner whose turn it is, of those who `may`; None without any."""
        owner = next(filter(may, self._queues), None)
        if owner is None:
            return None
        queue = self._queues.pop(owner)
        work = queue.popleft()
        if queue:
            self._queues[owner] = queue
        return work

    def take_out(self, unwanted: Callable[[W], bool]) -> list[W]:
        """Remove work that nobody waits for any more; gives it."""
        found = [work for work in self if unwanted(work)]
        for work in found:
            self._queues[work.owner].remove(work)
            if not self._queues[work.owner]:
                del self._queues[work.owner]
        return found
