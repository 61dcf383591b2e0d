"""A chat service on 127.0.0.1 that answers as `icae pwc build` and a judge need it."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.llm_stub import proper_answer


def reply(body: dict[str, Any]) -> str:
    """Triplets where a text is given in tags, else a verdict: the shorter answer is better."""
    user = body["messages"][-1]["content"]
    if "</text>" in user:
        return proper_answer(user)
    found = re.search(r"Answer A:\n(.*?)\n\nAnswer B:\n(.*?)\n\n", user, re.DOTALL)
    first, second = (len(part) for part in found.groups()) if found else (0, 0)
    verdict = "TIE" if first == second else "A" if first < second else "B"
    return f"One is shorter.\nVERDICT: {verdict}"


class Handler(BaseHTTPRequestHandler):
    """Answers every POST; a path that begins with /refuse gets 401."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"role": "assistant", "content": reply(body)}
        answer: dict[str, Any] = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140},
        }
        refused = self.path.startswith("/refuse")
        if refused:
            answer = {"error": {"message": "No.", "code": "invalid_api_key"}}
        data = json.dumps(answer).encode()
        self.send_response(401 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Stay silent."""


def make_server() -> ThreadingHTTPServer:
    """A server on a free port, not yet serving."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    return server
