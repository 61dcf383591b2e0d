"""Work on memories that the model's thread does a step at a time."""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field

from icae.compression.adaptive import FidelityPolicy
from icae.engine import Engine
from icae.errors import IcaeError, RequestError
from icae.memory import Memory, Span
from icae.serve.memory_models import MemoryObject, MemoryRequest
from icae.serve.refusals import refusal
from icae.serve.tracing import request_id

log = logging.getLogger(__name__)

Steps = Generator[tuple[int, int], None, MemoryObject]
"""Does some work each time; gives (spans done, spans in all), and in the end what was kept."""


@dataclass(kw_only=True, eq=False)
class Job:
    """A memory that is being made or changed.

    Attributes:
        work: Gives the steps of the work; they run in the model's thread.
        progress: (spans done, spans in all); (0, 0) before it begins.
        future: The memory when it is on the disk, or why the work failed.
        cancelled: Set when the result is not wanted any more.
        context: Of the request that asked for it; the steps run in it.
    """

    owner: str
    id: str
    title: str
    work: Callable[[Job], Steps]
    progress: tuple[int, int] = (0, 0)
    future: Future[MemoryObject] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    _steps: Steps | None = None

    @property
    def begun(self) -> bool:
        """Whether some of the work is done."""
        return self._steps is not None

    def step(self) -> bool:
        """Do some of the work; gives whether there is more to do."""
        try:
            self.require_wanted()
            self._steps = self._steps or self.work(self)
            self.progress = self.context.run(next, self._steps)
            return True
        except StopIteration as end:
            self._end()
            self.future.set_result(end.value)
        except Exception as error:
            if not isinstance(error, IcaeError):
                log.exception("Work of request %s on a memory failed.", self._request_id())
            self.fail(error)
        return False

    def fail(self, error: Exception) -> None:
        """Give the work up with an error, of which only what a client is told is kept."""
        self._end()
        told = refusal(error).with_traceback(None)
        told.__cause__ = told.__context__ = None
        self.future.set_exception(told)

    def _end(self) -> None:
        """Let go of the text and of all that the work held."""
        self._steps, self.work = None, _nothing

    def _request_id(self) -> str | None:
        return self.context.run(request_id)

    def require_wanted(self) -> None:
        """Raise a `RequestError` if the memory was deleted (404)."""
        if self.cancelled.is_set():
            raise RequestError("The memory was deleted.", status=404, code="memory_not_found")


def _nothing(job: Job) -> Steps:
    raise AssertionError("its work has ended")


def compressing(
    icae: Engine, wanted: MemoryRequest, *, ratio: float
) -> Generator[tuple[int, int], None, Memory]:
    """Compress a text, one batch of spans a step, to the memory that `Engine.compress` makes."""
    compressor = icae.compressor
    encode = functools.partial(compressor.encode, ratio=wanted.ratio or ratio)
    if wanted.min_fidelity is not None:
        policy = FidelityPolicy(min_fidelity=wanted.min_fidelity)
        encode = functools.partial(icae.adaptive.choose, policy=policy)
    tokens = compressor.tokenize(wanted.text)
    cut = compressor.cut(tokens)
    made: list[Span] = []
    yield 0, len(cut)
    for part in compressor.runtime.batches([span.tokens for span in cut]):
        made += encode(cut[part])
        yield len(made), len(cut)
    return compressor.memory(tokens, made, name=wanted.name)
