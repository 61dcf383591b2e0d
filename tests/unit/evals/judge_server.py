"""A judge on 127.0.0.1 that speaks the OpenAI protocol and misbehaves as asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[str], Any]
"""From the user's message to a reply: text, None for a message without text, a number for an
HTTP status, bytes for a raw body, or a float of seconds to wait before an empty answer."""


@dataclass
class Service:
    """A running judge.

    Attributes:
        url: Its base URL.
        asked: The user's messages so far.
        keys: The Authorization headers so far.
    """

    url: str = ""
    asked: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def serve(script: Script) -> Iterator[Service]:
    """Run a judge until the block ends."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = body["messages"][-1]["content"]
            service.asked.append(message)
            service.keys.append(self.headers.get("Authorization"))
            reply = script(message)
            if isinstance(reply, float):
                time.sleep(reply)
            status = reply if isinstance(reply, int) else 200
            if isinstance(reply, bytes):
                content = reply
            else:
                text = reply if isinstance(reply, str) else None
                choice = {"index": 0, "finish_reason": "stop"}
                choice["message"] = {"role": "assistant", "content": text}
                answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
                content = json.dumps({**answer, "choices": [choice]}).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client has gone, as it should after its timeout

        def log_message(self, *args: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
