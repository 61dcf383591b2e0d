"""A stand-in for the HTTP interface of the Hugging Face Hub: repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "hf_standin"


@dataclass
class Hub:
    """What it holds.

    Attributes:
        address: Where it listens.
        repositories: Repository -> file -> content.
        requests: What was asked for.
    """

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def commit(self, repository: str) -> str:
        content = repr(sorted(self.repositories[repository].items())).encode()
        return hashlib.sha1(content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers while the block runs."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: object = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _begin(self) -> list[str]:
        path = unquote(self.path.partition("?")[0])
        self.state.requests.append(f"{self.command} {path}")
        return path.strip("/").split("/")

    def do_POST(self) -> None:
        parts = self._begin()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if parts == ["api", "repos", "create"]:
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            self.state.repositories.setdefault(name, {})
            return self._answer(200, {"url": f"{self.state.address}/{name}"})
        if parts == ["api", "validate-yaml"]:
            return self._answer(200, {"errors": [], "warnings": []})
        files = self.state.repositories["/".join(parts[2:4])]
        if parts[4] == "preupload":
            asked = json.loads(body)["files"]
            kept = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
            ]
            return self._answer(200, {"files": kept})
        for line in body.splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                content = base64.b64decode(operation["value"]["content"])
                files[operation["value"]["path"]] = content
        commit = self.state.commit("/".join(parts[2:4]))
        return self._answer(
            200,
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.state.address}/{'/'.join(parts[2:4])}/commit/{commit}",
                "hookOutput": "",
                "pullRequestUrl": None,
            },
        )

    def do_GET(self) -> None:
        parts = self._begin()
        api = parts[:2] == ["api", "models"]
        repository = "/".join(parts[2:4] if api else parts[:2])
        files = self.state.repositories.get(repository)
        if files is None:
            return self._answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        commit = self.state.commit(repository)
        if api:
            return self._info(parts, repository, commit)
        name = "/".join(parts[4:])
        etag = hashlib.sha1(files[name]).hexdigest()
        return self._answer(200, files[name], ETag=f'"{etag}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

    def _info(self, parts: list[str], repository: str, commit: str) -> None:
        files = self.state.repositories[repository]
        if "tree" in parts:
            return self._answer(
                200,
                [
                    {
                        "type": "file",
                        "path": name,
                        "size": len(content),
                        "oid": hashlib.sha1(content).hexdigest(),
                    }
                    for name, content in files.items()
                ],
            )
        listed = [{"rfilename": name} for name in files]
        return self._answer(200, {"id": repository, "sha": commit, "siblings": listed})
