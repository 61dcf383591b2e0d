from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from icae.errors import RequestError
from icae.serve.chats import Chat
from icae.serve.config import ServerConfig
from icae.serve.jobs import Job
from icae.serve.metrics import Metrics
from icae.serve.worker import ModelWorker

STEP_S = 0.002


class Chats:
    """Takes a step for every chat; notes what was done in which order."""

    def __init__(self, done: list[str], steps: int) -> None:
        self.done, self.steps = done, steps
        self.left: list[tuple[Chat, int]] = []

    def __len__(self) -> int:
        return len(self.left)

    def may_take(self, owner: str, coming: Counter[str]) -> bool:
        return coming[owner] < 4

    def preparing(self, chat: Chat) -> Iterator[tuple[int, int]]:
        yield from chat.request or ()  # type: ignore[misc]

    def take(self, chats: Sequence[Chat]) -> None:
        self.left += [(work, self.steps) for work in chats]

    def step(self) -> None:
        time.sleep(STEP_S)
        self.done.append("chat")
        for work, left in self.left:
            if left == 1:
                work.future.set_result(None)
        self.left = [(work, left - 1) for work, left in self.left if left > 1]


def chat(owner: str = "anna") -> Any:
    return Chat(owner=owner, request=None, memories=(), deadline=0.0)


def document(done: list[str], steps: int, name: str = "document") -> Job:
    def work(own: Job) -> Iterator[tuple[int, int]]:
        for step in range(steps):
            time.sleep(STEP_S)
            done.append(name)
            yield step + 1, steps

    return Job(owner="anna", id=name, title=name, work=work)


@pytest.fixture
def done() -> list[str]:
    return []


def worker_of(done: list[str], **bounds: Any) -> Any:
    return ModelWorker(Chats(done, 20), config=ServerConfig(**bounds), metrics=Metrics())


def test_while_both_wait_chats_and_documents_take_turns(done: list[str]) -> None:
    worker = worker_of(done)
    works = [chat(), chat()]
    for work in works:
        worker.submit_chat(work)
    worker.submit_job(long := document(done, 20))
    worker.start()
    for one in (*works, long):
        one.future.result(timeout=20)
    worker.close(seconds=1)
    first = done[:20]
    assert 5 <= first.count("document") <= 15


def test_a_short_document_does_not_wait_for_a_long_one(done: list[str]) -> None:
    worker = worker_of(done)
    worker.submit_job(document(done, 40, "long"))
    worker.submit_job(short := document(done, 2, "short"))
    worker.start()
    short.future.result(timeout=20)
    assert done.count("long") < 40
    worker.close(seconds=1)


def test_at_the_end_chats_are_finished_and_documents_only_within_the_grace(done: Any) -> None:
    worker = worker_of(done)
    waiting, endless = chat(), document(done, 10**6)
    worker.submit_chat(waiting)
    worker.submit_job(endless)
    worker.start()
    worker.close(seconds=0.05)
    assert waiting.future.done()
    with pytest.raises(RequestError, match="shutting down"):
        endless.future.result(timeout=0)
    for submit, work in ((worker.submit_chat, chat()), (worker.submit_job, endless)):
        with pytest.raises(RequestError) as refused:
            submit(work)
        assert refused.value.status == 503


def test_slices_of_a_long_message_and_tokens_of_others_take_turns(done: list[str]) -> None:
    worker = worker_of(done)
    short, long = chat(), chat()
    long.request = document(done, 6, "slice").work(None)
    worker.submit_chat(short)
    worker.submit_chat(long)
    worker.start()
    for one in (short, long):
        one.future.result(timeout=20)
    worker.close(seconds=1)
    slices = [at for at, what in enumerate(done) if what == "slice"]
    assert len(slices) == 6
    assert all(later - before > 1 for before, later in itertools.pairwise(slices))
    assert slices[-1] < len(done) - 20  # its own answer came behind all of them


@pytest.mark.parametrize("way", ["goes", "fails"])
def test_a_long_message_of_one_that_goes_or_fails_ends_between_slices(
    done: list[str], way: str
) -> None:
    worker = worker_of(done)
    long, other = chat(), chat()

    def slices() -> Iterator[tuple[int, int]]:
        yield from document(done, 2, "slice").work(None)
        if way == "fails":
            raise RequestError("No.")
        long.give_up()
        yield from document(done, 9, "too many").work(None)

    long.request = slices()
    worker.submit_chat(long)
    worker.submit_chat(other)
    worker.start()
    other.future.result(timeout=20)
    worker.close(seconds=1)
    assert done.count("slice") == 2
    assert done.count("too many") <= 1
    assert (long.future.cancelled(), long.future.done()) == (way == "goes", True)


def test_more_documents_than_allowed_are_refused(done: list[str]) -> None:
    worker = worker_of(done, documents=2)
    for name in "ab":
        worker.submit_job(document(done, 1, name))
    with pytest.raises(RequestError) as refused:
        worker.submit_job(document(done, 1, "c"))
    assert (refused.value.status, refused.value.code) == (429, "queue_full")
    worker.start()
    worker.close(seconds=5)
