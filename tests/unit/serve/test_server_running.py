from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from icae.decode.torch_rows import DecodingRows
from icae.serve import waiting

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Where?"}], "max_tokens": 6}


def test_metrics_count_requests_tokens_and_what_waits(serve: Any) -> None:
    server = serve()
    made = server.make_memory()
    server.ask(made["id"])
    with server.client() as http:
        http.get("/v1/memories/none")
        for n in range(5):  # paths that clients make up do not become labels
            http.get(f"/nothing/{n}")
        told = http.get("/metrics")
    assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert {
        'icae_requests_total{endpoint="chat",status="200"} 1.0',
        'icae_requests_total{endpoint="get_memory",status="404"} 1.0',
        'icae_requests_total{endpoint="none",status="404"} 5.0',
        f"icae_context_tokens_total {float(made['tokens'])}",
        "icae_chats_waiting 0.0",
        'icae_request_seconds_count{endpoint="chat"} 1.0',
    } <= set(told.text.splitlines())


def test_a_server_that_is_told_to_end_finishes_what_it_has_begun(serve: Any) -> None:
    server = serve(answer_tokens=200, wait_seconds=30)
    results: list[Any] = []

    def post(path: str, body: dict[str, Any]) -> None:
        with server.client() as http:
            results.append(http.post(path, json=body))

    document = {"text": "The inn is near the end. " * 100}
    threads = [
        threading.Thread(target=post, args=["/v1/memories", document]),
        threading.Thread(target=post, args=["/v1/chat/completions", {**CHAT, "max_tokens": 200}]),
    ]
    for thread in threads:
        thread.start()
    begun = ("icae_documents_in_work", "icae_chats_answered")
    while not (all(map(server.counted, begun)) or results):
        time.sleep(0.005)
    server.server.should_exit = True
    for thread in threads:
        thread.join()
    server.thread.join(timeout=60)
    assert sorted(one.status_code for one in results) == [200, 201]
    assert not server.service.worker.alive


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_given_up_when_its_client_goes(
    serve: Any, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(waiting, "LOOKS_EVERY_S", 0.01)
    server = serve(answer_tokens=200)
    step = DecodingRows.step
    steps: list[int] = []

    def slow(self: Any) -> Any:
        time.sleep(0.02)
        steps.append(1)
        return step(self)

    monkeypatch.setattr(DecodingRows, "step", slow)
    body = {**CHAT, "max_tokens": 200, "stream": stream}
    with (
        suppress(httpx2.TimeoutException),
        httpx2.Client(base_url=server.url, timeout=0.5) as http,
        http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        next(response.iter_lines())
    while server.counted("icae_chats_answered"):
        time.sleep(0.01)
    assert len(steps) < 190


def test_health_tells_when_the_model_does_not_run(serve: Any) -> None:
    server = serve()
    with server.client() as http:
        assert http.get("/health").json() == {"status": "ok", "model": "tiny"}
        server.service.worker.close(seconds=1)
        assert http.get("/health").status_code == 503
        refused = http.post("/v1/chat/completions", json=CHAT)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "shutting_down"
