"""Requests to a running `icae serve`, and what is kept of the responses."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.recorded import outputs

LONGEST_S = 180
POLL_S = 0.05
Case = dict[str, Any]
Fill = Callable[[str], str]


def wait(pid: int) -> int:
    """The exit code of a process; one that takes too long is killed."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Server:
    """A server process in a folder."""

    def __init__(self, pid: int, messages: Path, folder: Path) -> None:
        self.pid = pid
        self.folder = folder
        self.address = ""
        end = time.monotonic() + LONGEST_S
        while not self.address and time.monotonic() < end:
            if found := re.search(r"at http://(127\.0\.0\.1:\d+)", messages.read_text()):
                self.address = found[1]
            elif os.waitpid(pid, os.WNOHANG)[0]:
                raise RuntimeError(messages.read_text()[-500:])
            time.sleep(POLL_S)

    def stop(self) -> int:
        """End it; its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return wait(self.pid)

    def ask(self, case: Case, fill: Fill) -> tuple[http.client.HTTPResponse, bytes]:
        """Send the request of a case; until its memory is ready where the case says so."""
        method, path = fill(case["http"]).split(" ", 1)
        headers = {"X-Request-Id": "recorded"} | {
            name: fill(text) for name, text in case.get("headers", {}).items()
        }
        body = fill(case.get("body", "")).encode()
        if "json" in case:
            body = fill(json.dumps(case["json"])).encode()
            headers = {"Content-Type": "application/json"} | headers
        if "file" in case:
            body = (self.folder / case["file"]).read_bytes()
        if "form" in case:
            body = self.form(case["form"])
            headers["Content-Type"] = "multipart/form-data; boundary=cut"
        for _ in range(int(LONGEST_S / POLL_S)):
            response, data = self.send(method, path, body, headers)
            if not case.get("until_ready") or b'"in_progress"' not in data:
                break
            time.sleep(POLL_S)
        return response, data

    def send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Any:
        """The head and the body of a response."""
        connection = http.client.HTTPConnection(self.address, timeout=LONGEST_S)
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def form(self, fields: dict[str, str]) -> bytes:
        """A multipart body; the field `file` names the file that is sent."""
        parts = []
        for name, value in fields.items():
            data = (self.folder / value).read_bytes() if name == "file" else value.encode()
            extra = f'; filename="{value}"' if name == "file" else ""
            head = f'--cut\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
            parts.append(head.encode() + data + b"\r\n")
        return b"".join(parts) + b"--cut--\r\n"


def record(head: http.client.HTTPResponse, data: bytes, hide: dict[str, str]) -> Any:
    """Status and body of a response; of a refusal only its form, of other types their size."""
    kind = (head.getheader("Content-Type") or "").partition(";")[0]
    names = ("Retry-After", "WWW-Authenticate", "Allow", "Content-Disposition", "Location")
    kept: dict[str, Any] = {"status": head.status, "type": kind}
    kept["headers"] = {name: head.getheader(name) for name in names if head.getheader(name)}
    if allowed := kept["headers"].get("Allow"):  # a set
        kept["headers"]["Allow"] = ", ".join(sorted(allowed.split(", ")))
    text = data.decode(errors="replace")
    if kind == "application/json":
        kept["body"] = _body(json.loads(data))
    elif kind == "text/event-stream":
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        kept["events"] = [json.loads(x) if x.startswith("{") else x for x in events]
    elif kind == "text/plain":
        kept["names"] = sorted(set(re.findall(r"^(icae\w+)", text, re.MULTILINE)))
    else:
        kept["bits"] = len(data).bit_length()
        kept["policy"] = head.getheader("Content-Security-Policy")
    return outputs.clean(kept, hide)


def _body(body: Any) -> Any:
    if isinstance(body.get("error"), dict) and "message" in body["error"]:
        body["error"]["message"] = "<str>"
    if "openapi" not in body:
        return body
    operations: dict[str, list[str]] = {}
    for path, methods in body["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                operations[f"{method} {path}"] = sorted(operation["responses"])
    schemas = body.get("components", {}).get("schemas", {})
    return operations | {name: sorted(x.get("properties", ())) for name, x in schemas.items()}
