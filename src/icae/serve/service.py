"""A loaded model, a store, and the thread between them: all that requests are served with."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from icae.decode.llamacpp.runtime import LlamaCppRuntime
from icae.decode.vllm.runtime import VllmRuntime
from icae.engine import Engine
from icae.serve.chats import Chats
from icae.serve.config import ServerConfig
from icae.serve.keys import Keys, OwnerLimit
from icae.serve.library import Library
from icae.serve.local_chats import LocalChats
from icae.serve.metrics import Metrics
from icae.serve.parsers import Parsers
from icae.serve.vllm_chats import VllmChats
from icae.serve.worker import ModelWorker
from icae.store import MemoryStore

T = TypeVar("T")


class Service:
    """What the endpoints share; its worker is not started.

    `decoder` answers chats in place of the loaded model, which then only compresses.

    Attributes:
        model: Name of the model that clients ask for: the adapter's.
        created: When the server started, Unix time, s.
        worker: The thread that runs the model.
        arriving: Requests of each owner that have no response yet.
        parsers: Processes that read uploaded files: a slow one holds up other uploads alone.
        probes: The thread that tries whether the store answers.
    """

    def __init__(
        self,
        icae: Engine,
        store: MemoryStore,
        *,
        keys: Keys,
        config: ServerConfig,
        decoder: VllmRuntime | LlamaCppRuntime | None = None,
    ) -> None:
        self.icae, self.keys, self.config = icae, keys, config
        self.model, self.created = icae.name, int(time.time())
        self.metrics = Metrics()
        chats: Chats
        if isinstance(decoder, VllmRuntime):
            chats = VllmChats(icae, decoder, config=config, metrics=self.metrics)
        else:
            answering = icae if decoder is None else icae.answering_in(decoder)
            chats = LocalChats(answering, config=config, metrics=self.metrics)
        self.worker = ModelWorker(chats, config=config, metrics=self.metrics)
        self.library = Library(icae, store, submit=self.worker.submit_job, metrics=self.metrics)
        self.arriving = OwnerLimit(config.per_owner)
        self.parsers = Parsers()
        self.probes = ThreadPoolExecutor(1, thread_name_prefix="icae-probe")


async def settled(future: Future[T], *, seconds: float) -> bool:
    """Wait in the event loop for what the model's thread does; gives whether it is done."""
    waiting = asyncio.wrap_future(future)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait({waiting}, timeout=seconds)
    return future.done()
