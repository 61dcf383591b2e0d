"""A real server on 127.0.0.1 over the tiny model, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from icae.serve.app import make_app
from icae.serve.config import ServerConfig
from icae.serve.keys import Keys, add_key
from icae.serve.listening import listen, make_server
from icae.serve.service import Service
from icae.store import create_store

TEXT = "The fox is in the inn. " * 3


@dataclass(frozen=True, kw_only=True)
class Running:
    url: str
    service: Service
    server: Any
    thread: threading.Thread

    def openai(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def make_memory(self, text: str = TEXT, *, key: str | None = None, **fields: Any) -> Any:
        with self.client(key) as http:
            made = http.post("/v1/memories", json={"text": text, "name": "fox", **fields})
            assert made.status_code in (201, 202), made.text
            body = made.json()
            while body["status"] == "in_progress":
                time.sleep(0.01)
                body = http.get(f"/v1/memories/{body['id']}").json()
        assert body["status"] == "ready", body
        return body

    @staticmethod
    def about(memory_id: str, question: str = "Where?") -> list[Any]:
        """Messages that refer to a memory."""
        parts = [{"type": "memory", "id": memory_id}, {"type": "text", "text": question}]
        return [{"role": "user", "content": parts}]

    def chat(self, said: Any, *, key: str = "none", **settings: Any) -> Any:
        """What OpenAI's client gets for a question or for messages."""
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        asked = {"model": "tiny", "messages": messages, "max_tokens": 6, **settings}
        return self.openai(key).chat.completions.create(**asked)

    def ask(self, memory_id: str, question: str = "Where?", *, key: str = "none") -> Any:
        return self.chat(self.about(memory_id, question), key=key).choices[0].message.content

    def counted(self, name: str) -> float:
        """A figure of the metrics that has no labels."""
        lines = self.service.metrics.text().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def client(self, key: str | None = None) -> httpx2.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60)


@contextmanager
def running(
    engine: Any,
    store: Path,
    *,
    keys: Keys | None = None,
    decoder: Any = None,
    access_log: bool = False,
    **bounds: Any,
) -> Iterator[Running]:
    config = ServerConfig(**{"answer_tokens": 8, "grace_s": 30, **bounds})
    with create_store(str(store)) as opened, listen("127.0.0.1", 0) as sock:
        service = Service(engine, opened, keys=keys or Keys(), config=config, decoder=decoder)
        server = make_server(make_app(service, access_log=access_log), grace_s=config.grace_s)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        try:
            yield Running(url=url, service=service, server=server, thread=thread)
        finally:
            server.should_exit = True
            thread.join(timeout=60)
            assert not thread.is_alive()


@pytest.fixture
def serve(engine: Any, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """``serve(keys=..., decoder=..., **bounds)``: a running server."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Running:
            return stack.enter_context(running(engine, tmp_path / "memories.db", **settings))

        yield start


@pytest.fixture(scope="package")
def shared(build_engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One running server for all tests that leave no trace in it."""
    path = tmp_path_factory.mktemp("shared") / "memories.db"
    with running(build_engine(), path, body_bytes=40_000) as server:
        yield server


@pytest.fixture
def http(shared: Running) -> Iterator[httpx2.Client]:
    """A client of the shared server."""
    with shared.client() as client:
        yield client


@pytest.fixture
def two_keys(tmp_path: Path) -> tuple[Keys, str, str]:
    """Keys of two owners, and the keys themselves."""
    path = tmp_path / "keys.txt"
    first, second = add_key(path, "anna"), add_key(path, "ben")
    return Keys.load(path), first, second


@pytest.fixture
def text() -> str:
    """A text of a few spans."""
    return TEXT
