from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest

from icae.decode.torch_rows import DecodingRows
from icae.errors import RequestError
from icae.serve.chat_models import ChatRequest
from icae.serve.chats import Chat
from icae.serve.config import ServerConfig
from icae.serve.library import KEPT_FAILURES
from icae.serve.local_chats import LocalChats
from icae.serve.metrics import Metrics
from icae.serve.turns import Turns
from icae.serve.worker import ModelWorker

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Where?"}], "max_tokens": 6}


@dataclass
class Work:
    owner: str
    number: int = 0


def test_owners_take_turns_and_work_of_one_goes_in_order() -> None:
    turns: Turns[Work] = Turns(10)
    for work in (Work("anna", 1), Work("anna", 2), Work("anna", 3), Work("ben", 4)):
        turns.add(work)
    assert (len(turns), turns.owners, turns.of("anna")) == (4, 2, 3)
    assert [one.number for one in iter(turns.next, None) if one] == [1, 4, 2, 3]
    assert (len(turns), turns.owners) == (0, 0)


def test_a_full_queue_of_one_owner_has_room_for_another() -> None:
    turns: Turns[Work] = Turns(4)
    while turns.room_for("anna"):
        turns.add(Work("anna"))
    assert turns.of("anna") == 4
    while turns.room_for("ben"):
        turns.add(Work("ben"))
    assert turns.of("ben") == 2
    assert not turns.room_for("anna")
    for name in map(str, range(20)):
        if turns.room_for(name):
            turns.add(Work(name))
    assert len(turns) <= 8


def test_work_that_nobody_wants_is_taken_out() -> None:
    turns: Turns[Work] = Turns(4)
    for work in (Work("anna", 1), Work("ben", 2)):
        turns.add(work)
    assert [one.number for one in turns.take_out(lambda work: work.owner == "anna")] == [1]
    assert (len(turns), turns.owners) == (1, 1)


def asking(engine: Any, owner: str, tokens: int, told: list[str]) -> Chat:
    asked = ChatRequest(**{**CHAT, "max_tokens": tokens})
    end = time.monotonic() + 1000
    return Chat(owner=owner, request=asked, memories=(), deadline=end, on_text=told.append)


@pytest.mark.parametrize("tokens", [6, 1000])
def test_a_newcomer_begins_three_turns_after_one_key_has_all_it_can_get(
    engine: Any, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn reads some prompts or writes a token of every answer."""
    monkeypatch.setattr("icae.decode.torch_decoding.POSITIONS_PER_BATCH", 1024)
    config, metrics = ServerConfig(waiting=400), Metrics()
    chats = LocalChats(engine, config=config, metrics=metrics)
    chats._decoding._stop_ids = frozenset()  # type: ignore[attr-defined]
    worker = ModelWorker(chats, config=config, metrics=metrics)
    for _ in range(60):
        worker.submit_chat(asking(engine, "anna", 100, []))
    before = -1
    while before < len(chats):  # until no more are taken
        before = len(chats)
        for _ in range(6):
            worker._write()
    assert 0 < len(chats) < 60
    worker.submit_chat(asking(engine, "ben", tokens, told := []))
    for _ in range(3):
        worker._write()
    assert told


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """One chat at a time is answered, a token in 20 ms."""
    step = DecodingRows.step

    def slowly(self: Any) -> Any:
        time.sleep(0.02)
        return step(self)

    monkeypatch.setattr(DecodingRows, "step", slowly)
    free = lambda self, _, coming: not len(self) and not coming.total()  # noqa: E731
    monkeypatch.setattr(LocalChats, "may_take", free)


def posting(server: Any, results: list[Any], key: str | None = None, **more: Any) -> Any:
    def post() -> None:
        with server.client(key) as http:
            results.append(http.post("/v1/chat/completions", json={**CHAT, **more}))

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def waiting(server: Any, count: int) -> None:
    end = time.monotonic() + 20
    while server.counted("icae_chats_waiting") != count:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.usefixtures("slow")
def test_one_key_with_much_work_does_not_hold_up_another(serve: Any, two_keys: Any) -> None:
    keys, anna, ben = two_keys
    server = serve(keys=keys, waiting=12)
    many: list[Any] = []
    threads = [posting(server, many, anna) for _ in range(24)]

    def ended(status: int) -> list[Any]:
        return [one for one in many if one.status_code == status]

    while not ended(429):
        time.sleep(0.005)
    before = len(ended(200))
    server.chat("Where?", key=ben)
    assert len(ended(200)) - before <= 6
    for thread in threads:
        thread.join()
    assert len(ended(200)) >= 12
    assert len(ended(200)) + len(ended(429)) == 24
    for full in ended(429):
        assert full.json()["error"]["code"] == "queue_full"
        assert int(full.headers["retry-after"]) >= 1


@pytest.mark.usefixtures("slow")
def test_at_the_end_what_waits_is_told_so_and_what_has_begun_is_finished(serve: Any) -> None:
    server = serve(answer_tokens=200)
    results: list[Any] = []
    threads = [posting(server, results, max_tokens=60)]
    waiting(server, 0)
    while not server.counted("icae_chats_answered"):
        time.sleep(0.005)
    threads += [posting(server, results) for _ in range(3)]
    waiting(server, 3)
    server.server.should_exit = True
    for thread in threads:
        thread.join()
    server.thread.join(timeout=20)
    assert [one.status_code for one in results] == [503, 503, 503, 200]
    assert results[0].json()["error"]["code"] == "shutting_down"
    assert results[0].headers["retry-after"]


@pytest.mark.usefixtures("slow")
def test_an_answer_longer_than_the_grace_does_not_keep_the_server(serve: Any) -> None:
    server = serve(answer_tokens=2000, grace_s=1)
    results: list[Any] = []
    thread = posting(server, results, max_tokens=2000)
    while not server.counted("icae_chats_answered"):
        time.sleep(0.005)
    begin = time.monotonic()
    server.server.should_exit = True
    server.thread.join(timeout=30)
    thread.join()
    assert time.monotonic() - begin < 6
    assert [one.status_code for one in results] == [503]


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_while_its_prompt_waits_leaves_the_queue(
    serve: Any, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(answer_tokens=200)
    thread = posting(server, results := [], max_tokens=100)
    while not server.counted("icae_chats_answered"):
        time.sleep(0.005)
    body = json.dumps({**CHAT, "stream": stream})
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as gone:
        gone.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        waiting(server, 1)
    time.sleep(0.2)
    before = server.counted("icae_answer_tokens_total")
    thread.join()
    while server.counted("icae_chats_answered"):
        time.sleep(0.005)
    time.sleep(0.1)
    assert results[0].status_code == 200
    written = results[0].json()["usage"]["completion_tokens"]
    assert server.counted("icae_answer_tokens_total") - before == written
    assert server.counted("icae_queue_seconds_count") == 1  # the other one was never taken
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_failed_documents_keep_what_is_told_and_no_text(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setattr(
        "icae.serve.library.compressing", lambda *_, **__: (_ for _ in ()).throw(_refused())
    )
    with server.client() as http:
        told = http.post("/v1/memories", json={"text": "The inn."})
        (listed,) = http.get("/v1/memories").json()["data"]
    assert told.status_code == 409
    assert (listed["status"], listed["error"]["code"]) == ("failed", "conflict")
    (job,) = server.service.library._jobs.values()
    error = job.future.exception()
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
    assert job._steps is None
    assert not job.work.__closure__
    assert KEPT_FAILURES <= 256


def _refused() -> RequestError:
    return RequestError("No.", status=409, code="conflict")
