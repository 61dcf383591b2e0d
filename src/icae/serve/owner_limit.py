"""How many requests of each owner are under way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from icae.errors import RequestError


class OwnerLimit:
    """Lets each owner have so many requests at a time; safe for several threads.

    Args:
        most: Most requests of one owner.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, owner: str) -> None:
        """Begin a request.

        Raises:
            RequestError: If the owner has too many already (429).
        """
        with self._lock:
            if self._taken[owner] >= self._most:
                raise RequestError(
                    "This key has too many requests at a time.",
                    status=429,
                    code="too_many_requests",
                    retry_after_s=1,
                    expected=f"at most {self._most}",
                )
            self._taken[owner] += 1

    def give(self, owner: str) -> None:
        """End a request."""
        with self._lock:
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]

    @contextmanager
    def held(self, owner: str) -> Iterator[None]:
        """A request for as long as the block runs.

        Raises:
            RequestError: As for `take`.
        """
        self.take(owner)
        try:
            yield
        finally:
            self.give(owner)
