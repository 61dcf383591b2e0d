"""A loaded model, a store, and the thread between them: all that requests are served with."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from icae.config.spans import check_ratio
from icae.decode.vllm.runtime import VllmRuntime
from icae.engine import Engine
from icae.serve.chat_bridge import ChatBridge
from icae.serve.keys import Keys
from icae.serve.library import Library
from icae.serve.limits import Limits, OwnerLimit
from icae.serve.local_chats import LocalChats
from icae.serve.metrics import Metrics
from icae.serve.vllm_chats import VllmChats
from icae.serve.worker import Chats, ModelWorker
from icae.store import MemoryStore

PARSERS = 2
"""Uploaded files that are read at a time."""

T = TypeVar("T")


class Service:
    """What the endpoints share; its worker is not started.

    Messages of more than `longest_message` tokens are read as memory, `ratio` (context tokens
    per slot) holds where a request does not say; `vllm` answers chats in place of the loaded
    model, which then only compresses.

    Attributes:
        model: Name of the model that clients ask for: the adapter's.
        created: When the server started, Unix time, s.
        metrics: Counts.
        library: The memories.
        worker: The thread that runs the model.
        arriving: Requests of each owner that have no response yet.
        parsers: Threads that read uploaded files: a slow one holds up other uploads alone.

    Raises:
        ConfigError: If the ratio is out of range.
    """

    def __init__(
        self,
        icae: Engine,
        store: MemoryStore,
        *,
        keys: Keys,
        limits: Limits,
        longest_message: int | None = None,
        ratio: float = 4.0,
        vllm: VllmRuntime | None = None,
    ) -> None:
        check_ratio(ratio)
        self.icae, self.keys, self.limits, self.ratio = icae, keys, limits, ratio
        self.model, self.created = icae.name, int(time.time())
        self.metrics = Metrics()
        bridge = ChatBridge(
            icae if vllm is None else icae.answering_in(vllm),
            limits=limits,
            metrics=self.metrics,
            longest_message=longest_message,
            ratio=ratio,
        )
        chats: Chats = (
            LocalChats(bridge, metrics=self.metrics, kept_bytes=limits.kept_bytes)
            if vllm is None
            else VllmChats(bridge, vllm, metrics=self.metrics)
        )
        self.worker = ModelWorker(chats, limits=limits, metrics=self.metrics)
        self.library = Library(icae, store, submit=self.worker.submit_job, metrics=self.metrics)
        self.arriving = OwnerLimit(limits.per_owner)
        self.parsers = ThreadPoolExecutor(PARSERS, thread_name_prefix="icae-parser")


async def settled(future: Future[T], *, seconds: float) -> bool:
    """Wait in the event loop for what the model's thread does; gives whether it is done."""
    waiting = asyncio.wrap_future(future)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait({waiting}, timeout=seconds)
    return future.done()
