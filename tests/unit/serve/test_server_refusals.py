from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from icae.decode.torch import TorchRuntime
from icae.serve import reading
from icae.serve.limits import Limits

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Where?"}], "max_tokens": 4}
JSON = {"Content-Type": "application/json"}
KNOWN = "mem_" + "0" * 24


@pytest.fixture
def held_model(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``with held_model() as begun``: the decoder waits inside until the block ends."""

    @contextmanager
    def hold() -> Iterator[threading.Event]:
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

    return hold


def post_in_thread(server: Any, statuses: list[int], **body: Any) -> threading.Thread:
    def post() -> None:
        with server.client() as http:
            statuses.append(http.post("/v1/chat/completions", json={**CHAT, **body}).status_code)

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def test_a_full_queue_sends_clients_away_with_a_time_to_come_back(
    serve: Callable[..., Any], held_model: Callable[..., Any]
) -> None:
    server, statuses = serve(limits=Limits(answer_tokens=8, waiting=2)), []
    with held_model() as begun:
        threads = [post_in_thread(server, statuses)]
        assert begun.wait(20)
        threads += [post_in_thread(server, statuses) for _ in range(2)]
        with server.client() as http:
            while "icae_chats_waiting 2.0" not in http.get("/metrics").text:
                time.sleep(0.01)
            refused = http.post("/v1/chat/completions", json=CHAT)
            streamed = http.post("/v1/chat/completions", json={**CHAT, "stream": True})
    for thread in threads:
        thread.join()
    for response in (refused, streamed):
        assert response.status_code == 429, response.text
        assert response.json()["error"]["code"] == "queue_full"
        assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert statuses == [200, 200, 200]


def test_one_key_cannot_take_the_whole_queue(
    serve: Callable[..., Any], held_model: Callable[..., Any], two_keys: tuple[Any, str, str]
) -> None:
    keys, anna, ben = two_keys
    server, statuses = serve(keys=keys, limits=Limits(answer_tokens=8, per_owner=1)), []

    def post(key: str) -> None:
        with server.client(key) as http:
            statuses.append(http.post("/v1/chat/completions", json=CHAT).status_code)

    with held_model() as begun:
        first = threading.Thread(target=post, args=[anna])
        first.start()
        assert begun.wait(20)
        post(anna)
        other = threading.Thread(target=post, args=[ben])
        other.start()
    first.join()
    other.join()
    assert statuses[0] == 429
    assert statuses[1:] == [200, 200]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_given_up(
    serve: Callable[..., Any], held_model: Callable[..., Any], stream: bool
) -> None:
    server = serve(limits=Limits(answer_tokens=8, request_seconds=0.2))
    with held_model(), server.client() as http:
        late = http.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    assert late.status_code == 504
    assert late.json()["error"]["code"] == "timeout"
    with server.client() as http:
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(
    serve: Callable[..., Any],
) -> None:
    body = b'{"text": "' + b"a" * 5000 + b'"}'

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 500):
            yield body[start : start + 500]

    with serve(limits=Limits(body_bytes=2000)).client() as http:
        for content in (body, pieces()):
            refused = http.post("/v1/memories", content=content, headers=JSON)
            assert refused.status_code == 413
            assert refused.json()["error"]["code"] == "body_too_large"
        upload = http.post("/v1/memories", files={"file": ("a.txt", b"a" * 5000)})
        assert upload.status_code == 413


def test_a_body_that_comes_too_slowly_is_refused(serve: Callable[..., Any]) -> None:
    server = serve(limits=Limits(body_seconds=0.1))
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as sock:
        sock.sendall(
            b"POST /v1/memories HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        sock.settimeout(20)
        assert sock.recv(100).startswith(b"HTTP/1.1 408 ")


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
    ],
)
def test_paths_that_try_to_reach_elsewhere_find_nothing(
    serve: Callable[..., Any], path: str
) -> None:
    port = int((server := serve()).url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as sock:  # sent as it stands
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        sock.settimeout(20)
        assert sock.recv(100).startswith(b"HTTP/1.1 404 ")
    assert server.service.worker.alive


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "other"}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "   "}]}, None),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"),
        ({"auto_compress": -1}, "auto_compress"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"stop": ["x"]}, "stop"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "memory", "id": 3}]}]}, None),
    ],
)
def test_a_chat_that_cannot_be_answered_is_refused_with_its_field(
    serve: Callable[..., Any], body: dict[str, Any], param: str | None
) -> None:
    with serve().client() as http:
        refused = http.post("/v1/chat/completions", json={**CHAT, **body})
    assert refused.status_code == (404 if body.get("model") else 400), refused.text
    if param is not None:
        assert refused.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"nan", b'{"text": "\\ud800"}', b"\xff", b"[" * 90_000]
)
def test_a_body_that_is_no_json_object_is_refused(
    serve: Callable[..., Any], content: bytes
) -> None:
    with serve().client() as http:
        for path in ("/v1/memories", "/v1/chat/completions"):
            refused = http.post(path, content=content, headers=JSON)
            assert refused.status_code in (400, 404), refused.text
            assert refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "  "},
        {"text": "x", "ratio": 0.5},
        {"text": "x", "ratio": 1e9},
        {"text": "x", "ratio": "4"},
        {"text": "x", "min_fidelity": 2},
        {"text": "x", "ratio": 4, "min_fidelity": 0.9},
        {"text": "x", "name": ""},
        {"text": "x", "name": "a\nb"},
        {"text": "x", "name": "a" * 500},
    ],
)
def test_a_memory_that_cannot_be_made_is_refused(
    serve: Callable[..., Any], fields: dict[str, Any]
) -> None:
    with serve().client() as http:
        refused = http.post("/v1/memories", json=fields)
        assert refused.status_code == 400, refused.text
        assert http.get("/v1/memories").json()["data"] == []


def test_uploads_without_a_usable_file_are_refused(serve: Callable[..., Any]) -> None:
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    with serve().client() as http:
        binary = http.post("/v1/memories", files={"file": ("x.bin", b"\x00\x01\xfe" * 50)})
        empty = http.post("/v1/memories", files={"file": ("x.txt", b"")})
        missing = http.post("/v1/memories", files={"other": ("x.txt", b"text")})
        damaged = http.post("/v1/memories", content=b"--x\r\nrubbish", headers=broken)
        other = http.post("/v1/memories", content=b"a", headers={"Content-Type": "text/plain"})
    for refused in (binary, empty, missing, damaged):
        assert refused.status_code == 400, refused.text
    assert other.status_code == 415


def test_what_is_not_there_or_takes_another_method_is_told_as_json(
    serve: Callable[..., Any],
) -> None:
    with serve().client() as http:
        gone, method = http.get("/v2/nothing"), http.put("/v1/memories")
    assert (gone.status_code, method.status_code) == (404, 405)
    assert gone.json()["error"]["type"] == "invalid_request_error"
    assert method.headers["Allow"]
    assert method.json()["error"]["code"] == "http_405"


def test_a_conversation_longer_than_the_context_window_is_refused(
    serve: Callable[..., Any],
) -> None:
    with serve().client() as http:
        long = [{"role": "user", "content": "The inn is far. " * 40}]
        refused = http.post("/v1/chat/completions", json={**CHAT, "messages": long})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"


def test_a_mistake_of_the_server_is_a_500_that_tells_nothing_and_it_goes_on(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("secret")

    with server.client() as http:
        with monkeypatch.context() as patch:
            patch.setattr(TorchRuntime, "positions", broken)
            failed = http.post("/v1/chat/completions", json=CHAT)
        assert failed.status_code == 500
        assert "secret" not in failed.text
        assert failed.json()["error"]["type"] == "server_error"
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_a_file_that_takes_too_long_to_be_read_holds_up_nothing_else(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        assert go_on.wait(30)

    monkeypatch.setattr(reading, "document_of_bytes", slow)
    server = serve(limits=Limits(answer_tokens=4, body_seconds=0.2))
    with server.client() as http:
        for _ in range(3):  # more than there are threads for it
            late = http.post("/v1/memories", files={"file": ("x.pdf", b"%PDF-")})
            assert (late.status_code, late.json()["error"]["code"]) == (408, "timeout")
        assert server.ask(server.make_memory()["id"])
    go_on.set()
