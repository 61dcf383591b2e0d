"""Waiting in the event loop for what the model's thread does."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any


async def settled(future: Future[Any], *, seconds: float) -> bool:
    """Wait for work without giving it up.

    Args:
        future: The work.
        seconds: Longest wait, s.

    Returns:
        Whether it is done, with a result or an error.
    """
    waiting = asyncio.wrap_future(future)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait({waiting}, timeout=seconds)
    return future.done()
