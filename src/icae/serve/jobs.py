"""Work on memories that the model's thread does a step at a time."""

from __future__ import annotations

import contextvars
import copy
import functools
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TypeVar

from icae.compression.adaptive import FidelityPolicy
from icae.compression.compressor import Compressor, TokenizedText, recalled
from icae.compression.living import Change
from icae.decode.batching import span_batches
from icae.engine import Engine
from icae.errors import IcaeError, RequestError
from icae.memory import Memory, Span
from icae.model.prompts import tokenize
from icae.serve.memory_models import MemoryObject, MemoryRequest
from icae.serve.refusals import refusal
from icae.serve.tracing import request_id

log = logging.getLogger(__name__)

SLICE_S = 0.1
"""How long a step of compressing is to take, s: answers under way are written on between two."""

MOST_TOKENS = 2048
"""Most tokens that are compressed in one step."""

MOMENT_S = 0.005
"""How long the model waits for another thread before it works for others, s."""

S = TypeVar("S")
T = TypeVar("T")

Progressing = Generator[tuple[int, int], None, T]
"""Does some work each time; gives (spans done, spans in all), and in the end what it made."""

Steps = Progressing[MemoryObject]
"""The work on a memory, which is kept in the end."""


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


class Tokenizing:
    """A thread that tokenizes long texts while the model works for others.

    Attributes:
        compressor: Has a tokenizer of its own: one encodes one text at a time, and the model's is
            not to wait.
    """

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = replace(compressor, tokenizer=copy.deepcopy(compressor.tokenizer))
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="icae-tokens")

    def count(self, text: str) -> int:
        """How many tokens a text has; for the thread."""
        return len(tokenize(self.compressor.tokenizer, text))

    def tokens(self, text: str) -> Progressing[TokenizedText]:
        """A text and its tokens."""
        return aside(self.pool, lambda: self.compressor.tokenize(text))


def compressing(
    icae: Engine, tokenizing: Tokenizing, wanted: MemoryRequest, *, ratio: float
) -> Progressing[Memory]:
    """Compress a text as a request wants it, to the memory that `Engine.compress` makes."""
    encode = functools.partial(icae.compressor.encode, ratio=wanted.ratio or ratio)
    if wanted.min_fidelity is not None:
        policy = FidelityPolicy(min_fidelity=wanted.min_fidelity)
        encode = functools.partial(icae.adaptive.choose, policy=policy)
    tokens = yield from tokenizing.tokens(wanted.text)
    made = yield from in_slices(icae.compressor, tokens, name=wanted.name, encode=encode)
    return (yield from _with_recall(icae.compressor, made, tokens))


def changing(
    icae: Engine,
    tokenizing: Tokenizing,
    memory: Memory,
    change: Callable[[Compressor, Memory], Change],
) -> Progressing[Memory]:
    """Change a memory, to that which `Engine.replace` makes."""
    icae.require_same(memory)
    found = yield from aside(tokenizing.pool, lambda: change(tokenizing.compressor, memory))
    encoded = None
    if found.to_encode is not None:
        text, ratio = found.to_encode
        encode = functools.partial(icae.compressor.encode, ratio=ratio)
        made = yield from in_slices(icae.compressor, text, name=found.name, encode=encode)
        encoded = yield from _with_recall(icae.compressor, made, text)
    return found.made(icae.compressor, encoded)


def in_slices(
    compressor: Compressor,
    text: TokenizedText,
    *,
    name: str,
    encode: Callable[[Sequence[Span]], list[Span]],
    clock: Callable[[], float] = time.monotonic,
) -> Progressing[Memory]:
    """Compress a text, some spans a step; all that have to go together at once."""
    cut = compressor.cut(text)

    def choose(left: Sequence[int], bound: int) -> Sequence[int]:
        places = [(cut[i].token_start, cut[i].token_end) for i in left]
        return next(compressor.runtime.passes(places, bound=bound))

    yield 0, len(cut)
    made = yield from _paced(cut, [span.tokens for span in cut], choose, encode, clock=clock)
    return compressor.memory(text, made, name=name)


def _with_recall(
    compressor: Compressor, memory: Memory, text: TokenizedText
) -> Progressing[Memory]:
    """`Compressor.with_recall` of a memory of a text, some probes a step."""
    probes = compressor.probes(memory, {0: text.ids})
    if not probes:
        return memory
    recall = compressor.runtime.recalling(compressor.runtime.asked(memory))
    tasks = list(probes.values())
    sizes, spans = [len(task.input_ids) for task in tasks], len(memory.spans)

    def choose(left: Sequence[int], bound: int) -> Sequence[int]:
        part = next(span_batches([sizes[i] for i in left], bound=bound))
        return range(part.stop)

    found = yield from _paced(tasks, sizes, choose, recall, progress=(spans, spans))
    return recalled(memory, probes, found)


def _paced(
    items: Sequence[S],
    sizes: Sequence[int],
    choose: Callable[[Sequence[int], int], Sequence[int]],
    call: Callable[[Sequence[S]], Sequence[T]],
    *,
    progress: tuple[int, int] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Progressing[list[T]]:
    """Call something with items of such sizes, as many a step as take about `SLICE_S`.

    The first step takes one item, each other one at most twice as many tokens as that before, or
    all that have to go together: `choose` says which of those left are within so many tokens.
    """
    made: dict[int, T] = {}
    bound = 1
    while left := [i for i in range(len(items)) if i not in made]:
        part = [left[i] for i in choose(left, bound)]
        begin = clock()
        made.update(zip(part, call([items[i] for i in part]), strict=True))
        seconds, taken = clock() - begin, sum(sizes[i] for i in part)
        bound = max(1, min(sliced(taken, seconds, SLICE_S), MOST_TOKENS))
        yield progress or (len(made), len(items))
    return [made[i] for i in range(len(items))]


def sliced(taken: int, seconds: float, wanted_s: float) -> int:
    """Tokens that take so long, after some took `seconds`: at most twice as many."""
    return min(2 * taken, int(taken * wanted_s / max(seconds, 1e-6)))


def aside(
    pool: Executor, call: Callable[[], T], *, progress: tuple[int, int] = (0, 0)
) -> Progressing[T]:
    """Have another thread call something: while it takes, the model works for others."""
    future = pool.submit(contextvars.copy_context().run, call)
    while not future.done():
        wait([future], timeout=MOMENT_S)
        if not future.done():
            yield progress
    return future.result()
