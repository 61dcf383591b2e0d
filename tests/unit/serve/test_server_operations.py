from __future__ import annotations

import json
import resource
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from icae.serve import connections, shelf

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Where?"}], "max_tokens": 6}


def test_a_request_has_an_id_that_the_client_may_choose(serve: Any) -> None:
    server = serve()
    with server.client() as http:
        own = http.get("/livez", headers={"X-Request-Id": "a-1.b:c"})
        made = [http.get("/livez", headers=h) for h in ({}, {"X-Request-Id": "a b\t{}"})]
        wrong = http.get("/v1/memories/mem_none", headers={"X-Request-Id": "mine"})
    assert own.headers["x-request-id"] == "a-1.b:c"
    ids = {one.headers["x-request-id"] for one in made}
    assert len(ids) == 2
    assert all(name.startswith("req_") for name in ids)
    assert wrong.json()["error"]["request_id"] == wrong.headers["x-request-id"] == "mine"


def test_the_access_log_has_a_line_of_json_for_each_request(
    serve: Any, capsys: pytest.CaptureFixture[str], two_keys: Any
) -> None:
    keys, anna, _ = two_keys
    server = serve(keys=keys, access_log=True)
    with server.client(anna) as http:
        http.get("/v1/memories/mem_secret", headers={"X-Request-Id": "first"})
        http.head("/livez")
        http.get("/nothing/secret")
    server.server.should_exit = True
    server.thread.join()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line[:1] == "{"]
    assert [(x["method"], x["route"], x["status"], x["owner"]) for x in lines] == [
        ("GET", "/v1/memories/{id}", 404, "anna"),
        ("HEAD", "/livez", 200, None),
        ("GET", None, 404, None),
    ]
    assert lines[0]["request_id"] == "first"
    assert lines[0]["ms"] >= 0


def test_metrics_tell_queue_first_token_tokens_and_store_errors(serve: Any) -> None:
    server = serve()
    server.chat("Where?")
    assert server.counted("icae_queue_seconds_count") == 1
    assert server.counted("icae_first_token_seconds_count") == 1
    assert server.counted("icae_first_token_seconds_sum") > 0
    assert server.counted("icae_prompt_tokens_total") > 0
    assert server.counted("icae_store_errors_total") == 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process, as SQLite sees it, is writing to the store."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file of this process gets longer than the log of the store is."""
    size = Path(f"{path}-wal").stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.parametrize("fault", [locked, full_disk])
def test_a_store_that_fails_is_said_logged_and_turns_readiness_off(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, fault: Any
) -> None:
    monkeypatch.setattr(shelf, "WAIT_S", 0.2)
    server = serve()
    kept = server.make_memory()
    with server.client() as http:
        with fault(tmp_path / "memories.db"):
            body, named = {"text": "The inn. " * 9}, {"X-Request-Id": "the-one"}
            failed = http.post("/v1/memories", json=body, headers=named)
            ready, live = http.get("/readyz"), http.get("/livez")
            assert server.ask(kept["id"])  # what only reads goes on
        assert http.get("/readyz").status_code == 200
        assert http.post("/v1/memories", json=body).status_code == 201
    assert (failed.status_code, ready.status_code, live.status_code) == (503, 503, 200)
    assert failed.json()["error"]["code"] == ready.json()["error"]["code"] == "store_unavailable"
    assert failed.headers["retry-after"]
    assert "the-one" in caplog.text
    assert server.counted("icae_store_errors_total") >= 1


def test_a_store_that_nobody_may_write_is_not_ready(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setattr(shelf, "open_store", read_only(shelf.open_store))
    with server.client() as http:
        refused = http.get("/readyz")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")


def read_only(open_store: Any) -> Any:
    def opened(path: str) -> Any:
        store = open_store(path)
        store._db.execute("PRAGMA query_only = ON")
        return store

    return opened


def test_a_locked_store_does_not_hold_up_chats_and_other_requests(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "WAIT_S", 3.0)
    server = serve()
    kept = server.make_memory()
    results: list[int] = []

    def post() -> None:
        with server.client() as http:
            results.append(http.post("/v1/memories", json={"text": "The inn. " * 9}).status_code)

    with locked(tmp_path / "memories.db"), server.client() as http:
        threads = [threading.Thread(target=post) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        begin = time.monotonic()
        assert server.ask(kept["id"])
        assert http.get("/livez").status_code == 200
        assert http.get("/v1/memories").status_code == 200
        took = time.monotonic() - begin
        assert not results
    for thread in threads:
        thread.join()
    assert took < 1.5
    assert results == [201] * 3


def test_half_sent_headers_are_cut(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_S", 0.3)
    server = serve()
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        one.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in one.recv(10_000)
        begin = time.monotonic()
        for byte in b"GET /livez HTTP/1.1":  # a byte at a time does not prolong it
            time.sleep(0.05)
            try:
                one.sendall(bytes([byte]))
            except OSError:
                break
        try:
            while one.recv(1000):
                pass
        except OSError:
            pass
    assert time.monotonic() - begin < 3


def test_what_is_accepted_sends_without_delay(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[int] = []
    made = connections.Connection.connection_made

    def noting(self: Any, transport: Any) -> None:
        made(self, transport)
        own = transport.get_extra_info("socket")
        options.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    monkeypatch.setattr(connections.Connection, "connection_made", noting)
    with serve().client() as http:
        http.get("/livez")
    assert options == [1]


def test_the_store_is_for_its_owner_alone(serve: Any, tmp_path: Path) -> None:
    serve().make_memory()
    files = [*tmp_path.glob("memories.db*")]
    assert {file.name: file.stat().st_mode & 0o777 for file in files} == {
        file.name: 0o600 for file in files
    }
