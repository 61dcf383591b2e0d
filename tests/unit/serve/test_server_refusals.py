"""What the server refuses: status and error object, and that it goes on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from icae.decode.torch import TorchRuntime

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Where?"}], "max_tokens": 4}
JSON = {"Content-Type": "application/json"}
KNOWN = "mem_" + "0" * 24


@contextmanager
def held_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The decoder waits inside until the block ends; gives an event for when it got there."""
    begun, go_on = threading.Event(), threading.Event()
    positions = TorchRuntime.positions

    def waiting(self: Any, *args: Any) -> Any:
        if threading.current_thread().name == "icae-model":
            begun.set()
            assert go_on.wait(30)
        return positions(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(TorchRuntime, "positions", waiting)
        try:
            yield begun
        finally:
            go_on.set()


def post_in_thread(server: Any, statuses: list[int], key: str | None = None) -> threading.Thread:
    def post() -> None:
        with server.client(key) as http:
            statuses.append(http.post("/v1/chat/completions", json=CHAT).status_code)

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def told(response: Any) -> tuple[int, str]:
    """Status and code of a refusal."""
    return response.status_code, response.json()["error"]["code"]


def sent(server: Any, text: str) -> bytes:
    """The begin of the answer to a request that is sent as it stands."""
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(text.encode())
        sock.settimeout(20)
        return sock.recv(100)


def test_a_full_queue_sends_clients_away_with_a_time_to_come_back(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[int] = []
    server = serve(waiting=2)
    with held_model(monkeypatch) as begun, server.client() as http:
        threads = [post_in_thread(server, statuses)]
        assert begun.wait(20)
        threads += [post_in_thread(server, statuses) for _ in range(2)]
        while server.counted("icae_chats_waiting") < 2:
            time.sleep(0.01)
        refused = [
            http.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            for stream in (False, True)
        ]
    for thread in threads:
        thread.join()
    for response in refused:
        assert told(response) == (429, "queue_full")
        assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert statuses == [200, 200, 200]


def test_one_key_cannot_take_the_whole_queue(
    serve: Any, monkeypatch: pytest.MonkeyPatch, two_keys: Any
) -> None:
    keys, anna, ben = two_keys
    statuses: list[int] = []
    server = serve(keys=keys, per_owner=1)
    with held_model(monkeypatch) as begun:
        threads = [post_in_thread(server, statuses, anna)]
        assert begun.wait(20)
        with server.client(anna) as http:
            refused = http.post("/v1/chat/completions", json=CHAT)
        threads.append(post_in_thread(server, statuses, ben))
    for thread in threads:
        thread.join()
    assert told(refused) == (429, "too_many_requests")
    assert statuses == [200, 200]


def test_an_answer_that_is_streamed_counts_for_its_key_until_it_ends(serve: Any) -> None:
    server = serve(answer_tokens=200, per_owner=1)
    body = {**CHAT, "max_tokens": 200, "stream": True}
    with server.client() as http, server.client() as other:
        with http.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("data: {")
            assert other.post("/v1/chat/completions", json=CHAT).status_code == 429
            assert "data: [DONE]" in list(lines)
        while (again := other.post("/v1/chat/completions", json=CHAT)).status_code == 429:
            time.sleep(0.01)
        assert again.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_given_up(
    serve: Any, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    server = serve(request_seconds=1.0)
    with server.client() as http:
        with held_model(monkeypatch):
            late = http.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        assert told(late) == (504, "timeout")
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(http: Any) -> None:
    body = b'{"text": "' + b"a" * 50_000 + b'"}'
    pieces = (body[start : start + 5000] for start in range(0, len(body), 5000))
    upload = {"files": {"file": ("a.txt", b"a" * 50_000)}}
    for sending in (
        {"content": body, "headers": JSON},
        {"content": pieces, "headers": JSON},
        upload,
    ):
        assert told(http.post("/v1/memories", **sending)) == (413, "body_too_large")


def test_a_body_that_comes_too_slowly_is_refused(serve: Any) -> None:
    server = serve(body_seconds=0.1)
    begin = "POST /v1/memories HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
    answer = sent(server, f"{begin}Content-Type: application/json\r\n\r\n{{")
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/memories/..%2f..%2fetc%2fpasswd",
        "/v1/memories/%2e%2e/spans",
        "/v1/memories/local%2f" + KNOWN,
        "/v1/memories/" + KNOWN + "%00",
        "/v1/memories/" + KNOWN.upper(),
        "/v1/memories/" + KNOWN + "/../../../x",
        "/v1/memories/" + "a" * 5000,
        "/v1/memories//file",
        "//etc/passwd",
        "/v1/models/..%2fother",
        "/playground/..%2fpage.py",
        "/playground/%2e%2e/page.py",
        "/playground/%00",
    ],
)
def test_paths_that_try_to_reach_elsewhere_find_nothing(shared: Any, path: str) -> None:
    answer = sent(shared, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert shared.service.worker.alive


def said(role: str, content: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": ["x"]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (said("user", "   "), None),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"),
        ({"auto_compress": -1}, "auto_compress"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": "x"}}, "stream_options.include_usage"),
        (said("user", [{"type": "memory", "id": 3}]), "messages[0].content[0].id"),
        (said("assistant", [{"type": "memory", "id": KNOWN}]), "messages[0].content"),
        (said("user", "The inn is far. " * 40), "messages"),
    ],
)
def test_a_chat_that_cannot_be_answered_is_refused_with_its_field(
    http: Any, body: dict[str, Any], param: str | None
) -> None:
    refused = http.post("/v1/chat/completions", json={**CHAT, **body})
    assert refused.status_code == 400, refused.text
    if param is not None:
        assert refused.json()["error"]["param"] == param


@pytest.mark.parametrize("model", [{"model": "other"}, {"model": 3}, {}])
def test_another_model_than_the_one_served_is_not_found(http: Any, model: dict[str, Any]) -> None:
    body = {"messages": CHAT["messages"], **model}
    assert told(http.post("/v1/chat/completions", json=body)) == (404, "model_not_found")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"nan", b'{"text": NaN}', b'{"text": "\\ud800"}', b"\xff", b"[" * 9000],
)
@pytest.mark.parametrize("path", ["/v1/memories", "/v1/chat/completions"])
def test_a_body_that_is_no_json_object_is_refused(http: Any, path: str, content: bytes) -> None:
    code = "invalid_request" if content == b"[]" else "invalid_json"
    assert told(http.post(path, content=content, headers=JSON)) == (400, code)


MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}


@pytest.mark.parametrize(
    ("code", "sending"),
    [
        *(
            ("invalid_request", {"json": {"text": "x", **fields}})
            for fields in (
                {"ratio": 1e9},
                {"min_fidelity": 2},
                {"name": ""},
                {"name": "a\nb"},
                {"name": "a" * 500},
            )
        ),
        ("invalid_request", {"files": {"file": ("x", b"text")}, "data": {"ratio": "many"}}),
        ("invalid_request", {"content": b"--x\r\nrubbish", "headers": MULTIPART}),
        ("invalid_upload", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}),
    ],
)
def test_a_memory_that_cannot_be_made_is_refused(
    http: Any, code: str, sending: dict[str, Any]
) -> None:
    assert told(http.post("/v1/memories", **sending)) == (400, code)


def test_a_mistake_of_the_server_is_a_500_that_tells_nothing_and_it_goes_on(
    shared: Any, http: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(TorchRuntime, "positions", broken)
        patch.setattr(shared.service.library, "page", broken)
        failed = [http.post("/v1/chat/completions", json=CHAT), http.get("/v1/memories")]
    for response in failed:
        assert response.status_code == 500
        assert "secret" not in response.text
        assert response.json()["error"]["type"] == "server_error"
    assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
