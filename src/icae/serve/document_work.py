"""Making and changing memories, a step at a time."""

from __future__ import annotations

import functools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from icae.compression.adaptive import FidelityPolicy
from icae.engine import Icae
from icae.errors import IcaeError, RequestError
from icae.memory import Memory, Segment
from icae.serve.incoming import NewDocument
from icae.serve.metrics import Metrics
from icae.serve.shelf import Shelf, new_memory_id

KEPT_FAILURES = 256
"""Failed documents that can be asked about; older ones are forgotten."""

Steps = Iterator[tuple[int, int]]
"""Does some work each time; gives (spans done, spans in all)."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class DocumentWork:
    """A memory that is being made or changed.

    Attributes:
        owner: Whose it is.
        id: Its id.
        title: What the owner calls it.
        steps: The work; run in the model's thread.
        appends: Whether it adds to a memory that is there already.
        progress: (spans done, spans in all); (0, 0) before it begins.
        future: Done when the memory is on the disk, or the work failed.
        cancelled: Set when the result is not wanted any more.
    """

    owner: str
    id: str
    title: str
    steps: Callable[[DocumentWork], Steps]
    appends: bool = False
    progress: tuple[int, int] = (0, 0)
    future: Future[None] = field(default_factory=Future)
    cancelled: threading.Event = field(default_factory=threading.Event)
    _under_way: Steps | None = None

    def step(self) -> bool:
        """Do some of the work.

        Returns:
            Whether there is more to do.
        """
        if self.cancelled.is_set():
            self.fail(_deleted())
            return False
        try:
            if self._under_way is None:
                self._under_way = self.steps(self)
            self.progress = next(self._under_way)
            return True
        except StopIteration:
            self.future.set_result(None)
        except IcaeError as error:
            self.fail(error)
        except Exception as error:
            log.exception("Work on a memory failed.")
            self.fail(error)
        return False

    def fail(self, error: Exception) -> None:
        """Give the work up."""
        self.future.set_exception(error)


class DocumentDesk:
    """Takes documents in, keeps track of the work on them, and puts memories on the shelf.

    Args:
        icae: The model.
        shelf: Where memories are kept.
        submit: Lets work wait for the model.
        metrics: Counts.
    """

    def __init__(
        self, icae: Icae, shelf: Shelf, *, submit: Callable[[DocumentWork], None], metrics: Metrics
    ) -> None:
        self._icae = icae
        self._shelf = shelf
        self._submit = submit
        self._metrics = metrics
        self._lock = threading.Lock()
        self._in_work: dict[tuple[str, str], DocumentWork] = {}
        self._failed: OrderedDict[tuple[str, str], DocumentWork] = OrderedDict()

    def create(self, owner: str, document: NewDocument, *, ratio: float) -> DocumentWork:
        """Begin to make a memory of a text.

        Args:
            owner: Whose it is.
            document: The text, and how it is to be held.
            ratio: Context tokens per slot where the document does not say.

        Raises:
            RequestError: If too many documents wait (429), or the server is closing (503).
        """

        def steps(work: DocumentWork) -> Steps:
            memories: list[Memory] = []
            yield from _compressing(self._icae, document, ratio=ratio, done=memories.append)
            self._metrics.context_tokens.inc(memories[0].tokens)
            self._put(work, memories[0])

        return self._begin(
            DocumentWork(owner=owner, id=new_memory_id(), title=document.title, steps=steps)
        )

    def take_in(self, owner: str, memory: Memory, *, title: str) -> str:
        """Keep a memory that was made elsewhere; it is on the disk when this returns.

        Args:
            owner: Whose it is.
            memory: The memory.
            title: What the owner calls it.

        Returns:
            Its id.

        Raises:
            IncompatibleMemoryError: If another adapter or base model made it.
        """
        self._icae.require_own(memory)
        memory_id = new_memory_id()
        self._shelf.put(owner, memory_id, title, memory, wanted=lambda: True)
        return memory_id

    def append(self, owner: str, memory_id: str, text: str) -> DocumentWork:
        """Begin to add text to the end of a memory; until it is done the old one is read.

        Args:
            owner: Whose it is.
            memory_id: Its id.
            text: What to add; it follows the last character at once.

        Raises:
            RequestError: As for `create`; if the owner has no such memory (404), or it is
                being worked on already (409).
        """
        try:
            title = self._shelf.get(owner, memory_id).title
        except RequestError as error:
            raise (_in_progress() if self._is_worked_on(owner, memory_id) else error) from error

        def steps(work: DocumentWork) -> Steps:
            yield 0, 1
            memory = self._shelf.load(owner, memory_id)
            longer = self._icae.append(memory, text)
            self._metrics.context_tokens.inc(longer.tokens - memory.tokens)
            self._put(work, longer)

        return self._begin(
            DocumentWork(owner=owner, id=memory_id, title=title, steps=steps, appends=True)
        )

    def work_on(self, owner: str, memory_id: str) -> DocumentWork | None:
        """The work on a memory that is under way or failed, if there is any."""
        with self._lock:
            key = (owner, memory_id)
            work = self._in_work.get(key) or self._failed.get(key)
            return None if work is None or work.cancelled.is_set() else work

    def works_of(self, owner: str) -> list[DocumentWork]:
        """All work of an owner that is under way or failed."""
        with self._lock:
            works = (*self._in_work.values(), *self._failed.values())
            return [work for work in works if work.owner == owner and not work.cancelled.is_set()]

    def drop(self, owner: str, memory_id: str) -> None:
        """Forget a memory, and work on it.

        Raises:
            RequestError: If the owner has none of that id (404).
        """
        self._shelf.drop(owner, memory_id, before=lambda: self._give_up(owner, memory_id))

    def _begin(self, work: DocumentWork) -> DocumentWork:
        key = (work.owner, work.id)
        with self._lock:
            if key in self._in_work:
                raise _in_progress()
            self._in_work[key] = work
        try:
            self._submit(work)
        except RequestError:
            with self._lock:
                del self._in_work[key]
            raise
        work.future.add_done_callback(lambda _: self._settle(work))
        return work

    def _settle(self, work: DocumentWork) -> None:
        key = (work.owner, work.id)
        with self._lock:
            self._in_work.pop(key, None)
            self._failed.pop(key, None)
            if work.future.exception() is not None and not work.cancelled.is_set():
                self._failed[key] = work
                while len(self._failed) > KEPT_FAILURES:
                    self._failed.popitem(last=False)

    def _is_worked_on(self, owner: str, memory_id: str) -> bool:
        with self._lock:
            work = self._in_work.get((owner, memory_id))
            return work is not None and not work.cancelled.is_set()

    def _give_up(self, owner: str, memory_id: str) -> bool:
        with self._lock:
            key = (owner, memory_id)
            failed = self._failed.pop(key, None)
            work = self._in_work.get(key)
            if work is not None:
                work.cancelled.set()
            return failed is not None or work is not None

    def _put(self, work: DocumentWork, memory: Memory) -> None:
        self._shelf.put(
            work.owner,
            work.id,
            work.title,
            memory,
            wanted=lambda: not work.cancelled.is_set(),
        )
        if work.cancelled.is_set():
            raise _deleted()


def _compressing(
    icae: Icae, document: NewDocument, *, ratio: float, done: Callable[[Memory], None]
) -> Steps:
    """Compress a text, one batch of spans a step; the memory is that of `Icae.compress`."""
    compressor = icae.compressor
    encode = functools.partial(compressor.encode, ratio=document.ratio or ratio)
    if document.min_fidelity is not None:
        policy = FidelityPolicy(min_fidelity=document.min_fidelity)
        encode = functools.partial(icae.adaptive.segments, policy=policy)
    tokens = compressor.tokenize(document.text)
    pieces = compressor.cut(tokens)
    segments: list[Segment] = []
    yield 0, len(pieces)
    for part in compressor.runtime.batches([len(ids) for ids in pieces]):
        segments += encode(pieces[part])
        yield len(segments), len(pieces)
    done(compressor.memory(tokens, segments, name=document.title))


def _deleted() -> RequestError:
    return RequestError("The memory was deleted.", status=404, code="memory_not_found")


def _in_progress() -> RequestError:
    return RequestError(
        "The memory is being worked on.", status=409, code="memory_in_progress", retry_after_s=1
    )
