"""`icae serve`, killed (SIGKILL) under load, has every memory that it said was ready.

``ICAE_SERVE_KILLS=20 python -m pytest tests/integration/test_serve_kills.py --timeout 3000``
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from icae.memory import memory_from_bytes

KILLS = int(os.environ.get("ICAE_SERVE_KILLS", "2"))
CLIENTS = 6
LIFE_S = 2.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX"),
]


class Client(threading.Thread):
    """Makes memories and appends to them until the server is gone; knows what was said."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__()
        self.url, self.number = url, number
        self.acknowledged: dict[str, str] = {}
        self.begun: dict[str, str] = {}

    def run(self) -> None:
        try:
            with httpx2.Client(base_url=self.url, timeout=30) as http:
                for turn in range(10_000):
                    self._make(http, f"Number {self.number} in turn {turn} is in the inn. ")
        except httpx2.HTTPError:
            pass  # killed

    def _make(self, http: httpx2.Client, text: str) -> None:
        made = http.post("/v1/memories", json={"text": text * 3})
        if made.status_code != 201:
            return
        memory_id = made.json()["id"]
        self.acknowledged[memory_id] = text * 3
        self.begun[memory_id] = text * 3 + "The end."
        longer = http.post(f"/v1/memories/{memory_id}/append", json={"text": "The end."})
        if longer.status_code == 200:
            self.acknowledged[memory_id] = self.begun[memory_id]


def held_text(http: httpx2.Client, memory_id: str) -> str | None:
    """The text that a memory stands for; the whole file is read and checked."""
    data = http.get(f"/v1/memories/{memory_id}/file")
    assert data.status_code == 200, (memory_id, data.text)
    return memory_from_bytes(data.content, where="the file").documents[0].source


def test_every_memory_acknowledged_before_a_kill_is_there_afterwards(
    serving: Callable[..., Any], tiny_adapter: Path, tmp_path: Path
) -> None:
    server = (tmp_path / "memories.db", "--adapter", tiny_adapter)
    clients: list[Client] = []
    for _ in range(KILLS):
        with serving(*server) as (process, url):
            life = [Client(url, len(clients) + n) for n in range(CLIENTS)]
            for client in life:
                client.start()
            while not all(client.acknowledged for client in life):
                time.sleep(0.05)
            time.sleep(LIFE_S)
            process.send_signal(signal.SIGKILL)
            for client in life:
                client.join()
            clients += life

    with serving(*server) as (process, url), httpx2.Client(base_url=url, timeout=30) as http:
        for client in clients:
            for memory_id, text in client.acknowledged.items():
                assert held_text(http, memory_id) in {text, client.begun[memory_id]}
        assert sum(len(client.acknowledged) for client in clients) >= KILLS * CLIENTS
        assert http.post("/v1/memories", json={"text": "It goes on."}).status_code == 201
        process.terminate()
        assert process.wait(timeout=60) == 0
