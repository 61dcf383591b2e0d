"""A chat service on 127.0.0.1 that answers as `icae pwc build` and a judge need it."""

from __future__ import annotations

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def _words(text: str, count: int) -> list[str]:
    letters = str.maketrans("0123456789", "ghijklmnop")
    digests = (hashlib.sha256(f"{i}:{text}".encode()).hexdigest() for i in range(count))
    return [digest[:8].translate(letters) for digest in digests]


def _triplets(text: str, orders: str) -> str:
    asked = re.search(r"Make up (\d+) prompts", orders)
    specific = []
    for number in range(int(asked[1]) if asked else 0):
        first, second, third = _words(f"{text}{number}", 3)
        prompt = f"What is said of {first} and {second}?"
        specific.append({"prompt": prompt, "answer": f"It is {third}."})
    general = []
    for number, prompt in re.findall(r"^(\d+)\. (.+)$", orders, re.MULTILINE):
        count = 6 if "title" in prompt or "keywords" in prompt else 24
        answer = " ".join(_words(f"{text}{prompt}", count)) + "."
        general.append({"number": int(number), "answer": answer})
    return json.dumps({"specific": specific, "general": general})


def reply(body: dict[str, Any]) -> str:
    """Triplets where a text is given in tags, else a verdict: the shorter answer is better."""
    user = body["messages"][-1]["content"]
    text, tag, orders = user.partition("</text>")
    if tag:
        return _triplets(text, orders)
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
