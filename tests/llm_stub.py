"""A real HTTP server on 127.0.0.1 that speaks as much of the chat completions API as is needed.

What it does with the n-th request it is asked for is decided by a function, so that tests
can have it stall, refuse, or answer with garbage.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Act:
    """What the server does with a request.

    ``content`` None: a proper answer to what was asked. ``raw``: this body as it stands.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: str | None = None
    finish: str = "stop"
    raw: bytes | None = None
    stall: float = 0.0
    hang_up: bool = False
    error: dict[str, Any] | None = None


def made_up_words(text: str, count: int) -> list[str]:
    """Words without digits that depend on a text, all different."""
    letters = str.maketrans("0123456789", "ghijklmnop")
    digests = (hashlib.sha256(f"{i}:{text}".encode()).hexdigest() for i in range(count))
    return [digest[:8].translate(letters) for digest in digests]


def proper_answer(user: str) -> str:
    """The JSON that the prompt asks for, with other words for every text."""
    text, _, orders = user.partition("</text>")
    asked = re.search(r"Make up (\d+) prompts", orders)
    specific = []
    for number in range(int(asked[1]) if asked else 0):
        first, second, third = made_up_words(f"{text}{number}", 3)
        specific.append(
            {"prompt": f"What is said of {first} and {second}?", "answer": f"It is {third}."}
        )
    general = []
    for number, prompt in re.findall(r"^(\d+)\. (.+)$", orders, re.MULTILINE):
        count = 6 if "title" in prompt or "keywords" in prompt else 24
        words = made_up_words(f"{text}{prompt}", count)
        general.append({"number": int(number), "answer": " ".join(words) + "."})
    return json.dumps({"specific": specific, "general": general})


class LlmStub:
    """The server's state: what it was asked and what it did."""

    def __init__(self, decide: Callable[[int], Act]) -> None:
        self.decide = decide
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.answered: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self.url = ""

    def begin(self, body: dict[str, Any], key: str) -> int:
        with self.lock:
            self.bodies.append(body)
            self.keys.append(key)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            return len(self.bodies) - 1


@contextmanager
def llm_stub(decide: Callable[[int], Act] = lambda number: Act()) -> Iterator[LlmStub]:
    """Run the server while the block runs; ``decide(n)`` says what to do with request n."""
    state = LlmStub(decide)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = state.begin(body, self.headers.get("Authorization", ""))
            act = state.decide(number)
            time.sleep(act.stall)
            with state.lock:  # before the answer, which may bring the next request at once
                state.in_flight -= 1
            try:
                self._act(act, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _act(self, act: Act, body: dict[str, Any]) -> None:
            user = body["messages"][-1]["content"]
            if act.hang_up:
                self.close_connection = True
                return
            content = proper_answer(user) if act.content is None else act.content
            message = {"role": "assistant", "content": content}
            answer: dict[str, Any] = {
                "model": body["model"],
                "choices": [{"index": 0, "finish_reason": act.finish, "message": message}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140},
            }
            if act.status != 200:
                answer = {"error": act.error or {"message": f"status {act.status}", "code": None}}
            data = json.dumps(answer).encode() if act.raw is None else act.raw
            if act.status == 200 and act.raw is None:
                with state.lock:
                    state.answered.append(user)
            self.send_response(act.status)
            for name, value in act.headers.items():
                self.send_header(name, value)
            if "Content-Type" not in act.headers:
                self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that was killed is no error of the server."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
