"""Server processes on one store, killed at random: is every acknowledged append in the memory?

python -m benchmarks.serve_kills --output docs/results/serve-load [--quick]
    [--servers 4] [--kills 100] [--most-seconds 900] [--seed 0]

Each server has a client that appends to one memory which all of them share, and now and then makes
a memory of its own. Servers are killed (SIGKILL) at random times and started again until there were
so many kills, or the time is up. Then every text that was acknowledged must be in the memory once,
every other one at most once, every memory must be readable through each server, and the store
sound. The tiny random model of the recorded tests answers at 127.0.0.1; servers and clients are
forked from one process that has loaded all modules and has no other thread.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx2

import icae.engine
import icae.serve.app  # noqa: F401 - loaded before the forks
from icae.cli.app import app
from icae.memory import memory_from_bytes
from icae.store import open_store

TINY = Path(__file__).parents[1] / "tests" / "recorded"
TINY_MODEL = (
    *("--adapter", str(TINY / "adapter"), "--base", str(TINY / "base")),
    *("--device", "cpu", "--dtype", "float32"),
)
LIFE_S = (0.1, 1.0)
"""From one kill to the next, s: drawn evenly."""
START_S = 120.0
"""Longest time for a server to start, s."""


@dataclass(kw_only=True)
class Server:
    """A server process, started anew at the same port; `options` of `icae serve` beside these."""

    store: Path
    port: int
    options: Sequence[str] = ()
    model: Sequence[str] = TINY_MODEL
    pid: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Fork, and wait until it answers."""
        self.pid = os.fork()
        if self.pid == 0:
            log = os.open(f"{self.store}.{self.port}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(log, 2)
            options = [*self.model, "--port", str(self.port), *self.options]
            try:
                app(["serve", "--store", str(self.store), *options], prog_name="icae")
            finally:
                os._exit(1)
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            try:
                httpx2.get(f"{self.url}/readyz", timeout=5)
            except httpx2.HTTPError:
                time.sleep(0.02)
            else:
                return
        raise SystemExit(f"The server at {self.url} did not start.")

    @contextmanager
    def running(self) -> Iterator[Server]:
        """A started server, killed in the end."""
        self.start()
        try:
            yield self
        finally:
            self.kill()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@dataclass(kw_only=True)
class Told:
    """What one client sent, and what it was told."""

    sent: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


def client(
    server: Server, memory_id: str, name: str, results: SimpleQueue[Told], ended: Event
) -> None:
    """Append one text after the other, whatever becomes of the server."""
    told, number = Told(), 0
    while not ended.is_set():
        number += 1
        text = f" <{name}-{number}>"
        try:
            with httpx2.Client(base_url=server.url, timeout=30) as http:
                if number % 10 == 0:
                    made = http.post("/v1/memories", json={"text": f"The inn{text}."})
                    told.made += [made.json()["id"]] if made.status_code == 201 else []
                told.sent.append(text)
                answer = http.post(f"/v1/memories/{memory_id}/append", json={"text": text})
        except httpx2.HTTPError:
            told.statuses["no response"] += 1
            time.sleep(0.05)
            continue
        told.statuses[str(answer.status_code)] += 1
        if answer.status_code == 200:
            told.acknowledged.append(text)
        elif "Retry-After" in answer.headers:
            time.sleep(0.1)
    results.put(told)


def kill_at_random(servers: list[Server], settings: argparse.Namespace) -> tuple[int, float]:
    """Kill and start servers; gives how many were killed, and how long all of it took, s."""
    draw, begin = random.Random(settings.seed), time.monotonic()
    for kills in range(settings.kills):
        if time.monotonic() - begin > settings.most_seconds:
            return kills, time.monotonic() - begin
        time.sleep(draw.uniform(*LIFE_S))
        server = draw.choice(servers)
        server.kill()
        server.start()
    time.sleep(LIFE_S[1])
    return settings.kills, time.monotonic() - begin


def unreadable(servers: list[Server], memory_ids: list[str]) -> int:
    """How many memories a server does not give whole; each is asked of one server in turn."""
    wrong = 0
    for at, memory_id in enumerate(memory_ids):
        url = servers[at % len(servers)].url
        data = httpx2.get(f"{url}/v1/memories/{memory_id}/file", timeout=60)
        wrong += data.status_code != 200
        if data.status_code == 200:
            memory_from_bytes(data.content, where=memory_id)  # raises if it is damaged
    return wrong


def text_of(server: Server, memory_id: str) -> str:
    spans = httpx2.get(f"{server.url}/v1/memories/{memory_id}/spans", timeout=60).json()
    return str(spans["documents"][0]["text"])


def figures(servers: list[Server], memory_id: str, clients: list[Told]) -> dict[str, Any]:
    """What became of all that was sent."""
    texts = [text_of(server, memory_id) for server in servers]
    held = Counter(f" <{part.split('>')[0]}>" for part in texts[0].split(" <")[1:])
    acknowledged = [text for told in clients for text in told.acknowledged]
    made = [one for told in clients for one in told.made]
    statuses: Counter[str] = sum((told.statuses for told in clients), Counter())
    return {
        "appends_sent": sum(len(told.sent) for told in clients),
        "appends_acknowledged": len(acknowledged),
        "acknowledged_lost": sum(not held[text] for text in acknowledged),
        "twice_in_the_memory": sum(count > 1 for count in held.values()),
        "held_without_acknowledgement": len(held.keys() - set(acknowledged)),
        "statuses": dict(statuses),
        "memories_made": len(made),
        "memories_unreadable": unreadable(servers, [*made, *[memory_id] * len(servers)]),
        "servers_agree": len(set(texts)) == 1,
        "characters_of_the_memory": len(texts[0]),
    }


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--most-seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="5 kills of 2 servers, a minute")
    settings = parser.parse_args()
    if settings.quick:
        settings.servers, settings.kills, settings.most_seconds = 2, 5, 60.0
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "memories.db"
        servers = [Server(store=store, port=free_port()) for _ in range(settings.servers)]
        for server in servers:
            server.start()
        made = httpx2.post(f"{servers[0].url}/v1/memories", json={"text": "It begins."}, timeout=60)
        fork = multiprocessing.get_context("fork")
        memory_id, ended, results = made.json()["id"], fork.Event(), fork.SimpleQueue()
        for at, server in enumerate(servers):
            fork.Process(target=client, args=(server, memory_id, str(at), results, ended)).start()
        kills, seconds = kill_at_random(servers, settings)
        ended.set()
        clients: list[Told] = [results.get() for _ in servers]
        found = {"servers": len(servers), "kills": kills, "seconds": round(seconds)}
        found |= figures(servers, memory_id, clients)
        for server in servers:
            server.kill()
        with open_store(str(store)) as opened:
            found["store_problems"] = opened.verify()
    print(json.dumps(found, indent=1))
    if settings.output is not None:
        settings.output.mkdir(parents=True, exist_ok=True)
        (settings.output / "serve-kills.json").write_text(json.dumps(found, indent=1) + "\n")
    wrong = ("acknowledged_lost", "twice_in_the_memory", "memories_unreadable", "store_problems")
    sys.exit(any(found[name] for name in wrong) or not found["servers_agree"])


if __name__ == "__main__":
    main()
