"""Many clients at `icae serve`: questions about memories against the same with full context.

python benchmarks/serve_load.py examples/pep-0347.txt --output docs/results/serve-load
    [--clients 50] [--seconds 300] [--rounds 1] [--store load.db] [--adapter FOLDER]
    [--memory-only] [--runtime torch --runtime llamacpp]

A server process answers; every client asks, waits for the whole answer and asks again, about
one of the documents: as a memory (4x, made before; a store that is named keeps it for the next
run), or with the text in the message. Each round lets both ways have the same time, one after
the other; runtimes that are named follow one another, each with a server. What is still under
way when the time is up is given up and not counted; a client that is told 429 waits as long as it
is told.

Beside requests/s of wall time it gives requests per processor second of the server: on a
machine that does other work, too, only that and the ratios mean something.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil

QUESTIONS = (
    "What is this text about?",
    "Who is named in the text?",
    "Which place does the text speak of?",
    "What happens at the end?",
)
ANSWER_TOKENS = 16
Ask = Callable[[int], list[dict[str, Any]]]


@dataclass(kw_only=True)
class Phase:
    """What one way of asking did in all rounds."""

    way: str
    seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    positions: int = 0

    def summary(self) -> dict[str, Any]:
        done = len(self.latencies)
        edges = statistics.quantiles(self.latencies, n=20) if done > 1 else [float("nan")] * 19
        first = statistics.quantiles(self.first_tokens, n=20) if done > 1 else edges
        settled = self.rss_mb[len(self.rss_mb) // 5 :]
        third = max(1, len(settled) // 3)
        return {
            "way": self.way,
            "answers": done,
            "statuses": dict(self.statuses),
            "positions_read": self.positions,
            "requests_per_s": round(done / self.seconds, 4),
            "requests_per_cpu_s": round(done / self.server_cpu_seconds, 4),
            "server_cpu_share": round(self.server_cpu_seconds / self.seconds, 3),
            "first_token_p50_s": round(first[9], 2),
            "first_token_p95_s": round(first[18], 2),
            "p50_s": round(statistics.median(self.latencies), 2) if done else None,
            "p95_s": round(edges[18], 2),
            "rss_mb_early": round(statistics.median(settled[:third])),
            "rss_mb_late": round(statistics.median(settled[-third:])),
            "rss_mb_most": round(max(self.rss_mb)),
        }


@contextmanager
def serving(store: Path, options: Sequence[str]) -> Iterator[tuple[psutil.Process, str]]:
    """A server process and its address."""
    command = [sys.executable, "-m", "icae", "serve", "--store", str(store)]
    process = subprocess.Popen(
        [*command, "--port", "0", *options], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stderr is not None
        line = " "
        while line and "Serving " not in line:
            line = process.stderr.readline()
        if not line:
            raise SystemExit("The server did not start.")
        yield psutil.Process(process.pid), line.split(" at ")[1].split("/v1")[0]
    finally:
        process.terminate()
        process.wait(timeout=120)


def memories_of(url: str, documents: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Memories of documents (name, text), each ready; those that the store has are not made."""
    with httpx2.Client(base_url=url, timeout=600) as http:
        known = {one["name"]: one for one in http.get("/v1/memories?limit=100").json()["data"]}
        memories = []
        for name, text in documents:
            made = known.get(name)
            if made is None:
                made = http.post("/v1/memories", json={"text": text, "name": name}).json()
            while made["status"] == "in_progress":
                time.sleep(0.5)
                made = http.get(f"/v1/memories/{made['id']}").json()
            assert made["status"] == "ready", made
            memories.append(made)
    return memories


def streamed(http: httpx2.Client, body: dict[str, Any], seconds: float) -> tuple[Any, float, int]:
    """Ask and read the whole stream: the response, s to the first text, positions read."""
    begin, first, positions = time.monotonic(), 0.0, 0
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with http.stream("POST", "/v1/chat/completions", json=asked, timeout=seconds) as response:
        for line in response.iter_lines():
            if time.monotonic() - begin > seconds:
                raise httpx2.ReadTimeout("the time of the phase is up")
            if not line.startswith("data: {"):
                continue
            piece = json.loads(line.removeprefix("data: "))
            if any(choice["delta"].get("content") for choice in piece["choices"]):
                first = first or time.monotonic() - begin
            positions = (piece.get("usage") or {}).get("prompt_tokens", positions)
    return response, first or time.monotonic() - begin, positions


def client(url: str, number: int, ask: Ask, phase: Phase, end: float, lock: threading.Lock) -> None:
    """Ask until the time is up."""
    with httpx2.Client(base_url=url, timeout=60) as http:
        turn = number
        model = http.get("/v1/models").json()["data"][0]["id"]
        while (left := end - time.monotonic()) > 0:
            body = {"model": model, "messages": ask(turn), "max_tokens": ANSWER_TOKENS}
            begin = time.monotonic()
            try:
                response, first, positions = streamed(http, body, left)
            except httpx2.TimeoutException:
                return  # the time of the phase is up
            except httpx2.HTTPError as error:
                with lock:
                    phase.statuses[type(error).__name__] += 1
                continue
            with lock:
                phase.statuses[str(response.status_code)] += 1
                if response.status_code == 200:
                    phase.latencies.append(time.monotonic() - begin)
                    phase.first_tokens.append(first)
                    phase.positions = positions
            if response.status_code == 429:
                time.sleep(min(float(response.headers["Retry-After"]), max(left, 0)))
            turn += 1


def run_phase(url: str, server: psutil.Process, phase: Phase, ask: Ask, settings: Any) -> None:
    """Let all clients ask in one way for the time of a round."""
    begin, end = time.monotonic(), time.monotonic() + settings.seconds
    before = server.cpu_times()
    lock = threading.Lock()
    threads = [
        threading.Thread(target=client, args=(url, n, ask, phase, end, lock))
        for n in range(settings.clients)
    ]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        phase.rss_mb.append(round(server.memory_info().rss / 1e6, 1))
        time.sleep(1.0)
    after = server.cpu_times()
    phase.seconds += time.monotonic() - begin
    phase.server_cpu_seconds += after.user + after.system - before.user - before.system
    for thread in threads:
        thread.join()
    while "icae_chats_answered 0.0" not in (told := httpx2.get(f"{url}/metrics").text) or (
        "icae_chats_waiting 0.0" not in told
    ):
        time.sleep(0.5)


def table(phases: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        "| way | answers | statuses | positions read | requests/s | requests per processor second "
        "| first token p50, p95 s | p50 s | p95 s | RSS early, late, most (MB) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in phases:
        statuses = ", ".join(f"{count} x {status}" for status, count in one["statuses"].items())
        rows.append(
            f"| {one['way']} | {one['answers']} | {statuses} | {one['positions_read']} "
            f"| {one['requests_per_s']} | {one['requests_per_cpu_s']} "
            f"| {one['first_token_p50_s']}, {one['first_token_p95_s']} | {one['p50_s']} "
            f"| {one['p95_s']} | {one['rss_mb_early']}, {one['rss_mb_late']}, "
            f"{one['rss_mb_most']} |"
        )
    return rows


def write_report(folder: Path, settings: Any, phases: Sequence[Phase]) -> None:
    """The figures as JSON and Markdown."""
    first, *others = ways = [phase.summary() for phase in phases]
    ratios = {
        other["way"]: {
            name: round(first[key] / other[key], 2) if other[key] else None
            for name, key in (("wall", "requests_per_s"), ("processor", "requests_per_cpu_s"))
        }
        for other in others
    }
    folder.mkdir(parents=True, exist_ok=True)
    setting: dict[str, Any] = {"clients": settings.clients, "seconds": settings.seconds}
    setting |= {"rounds": settings.rounds, "tokens": settings.tokens, "model": settings.model}
    setting |= {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    record = {
        "setting": setting,
        "ways": ways,
        "ratios": ratios,
        "raw": [
            {"first_tokens_s": p.first_tokens, "latencies_s": p.latencies, "rss_mb": p.rss_mb}
            for p in phases
        ],
    }
    (folder / "serve-load.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        "# Many clients at the server",
        "",
        f"`{' '.join(['python', 'benchmarks/serve_load.py', *sys.argv[1:]])}`",
        "",
        f"{settings.model}; {settings.clients} clients, {settings.rounds} x "
        f"{settings.seconds:g} s each way in turn, documents of {settings.tokens} tokens at 4x, "
        f"answers of at most "
        f"{ANSWER_TOKENS} tokens; {os.cpu_count()} cores. The server had "
        + ", ".join(f"{one['server_cpu_share']:.0%} of a core ({one['way']})" for one in ways)
        + ".",
        "",
        *table(ways),
    ]
    for way, own in ratios.items():
        lines += [
            "",
            f'Requests/s, "{ways[0]["way"]}" over "{way}": **{own["wall"]}**, per processor '
            f"second of the server **{own['processor']}**.",
        ]
    (folder / "serve-load.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def measure(
    url: str, server: psutil.Process, documents: Sequence[tuple[str, str]], settings: Any
) -> list[Phase]:
    """What a server does in each way; notes its model and the tokens of the documents."""
    memory, full = Phase(way="memory"), Phase(way="full context")
    memories = memories_of(url, documents)
    ids = [one["id"] for one in memories]
    settings.model = httpx2.get(f"{url}/health").json()["model"]
    settings.tokens = ", ".join(str(one["tokens"]) for one in memories)

    def about_memory(turn: int) -> list[dict[str, Any]]:
        part = {"type": "memory", "id": ids[turn % len(ids)]}
        question = {"type": "text", "text": QUESTIONS[turn // len(ids) % len(QUESTIONS)]}
        return [{"role": "user", "content": [part, question]}]

    def with_text(turn: int) -> list[dict[str, Any]]:
        question = QUESTIONS[turn // len(ids) % len(QUESTIONS)]
        return [{"role": "user", "content": f"{documents[turn % len(ids)][1]}\n\n{question}"}]

    ways = [(memory, about_memory), (full, with_text)][: 1 if settings.memory_only else 2]
    for number in range(settings.rounds):
        for phase, ask in ways:
            print(f"Round {number + 1}: {phase.way}", file=sys.stderr)
            run_phase(url, server, phase, ask, settings)
    return [phase for phase, _ in ways]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--adapter", help="by default the one shipped")
    parser.add_argument("--memory-only", action="store_true", help="to compare adapters")
    parser.add_argument("--runtime", action="append", help="of the server; may be repeated")
    settings = parser.parse_args()
    documents = [(path.name, path.read_text(encoding="utf-8")) for path in settings.documents]
    phases = []
    with tempfile.TemporaryDirectory() as folder:
        store = settings.store or Path(folder) / "load.db"
        for runtime in settings.runtime or ["torch"]:
            options = ["--max-per-key", str(settings.clients), "--runtime", runtime]
            options += ["--adapter", settings.adapter] if settings.adapter else []
            with serving(store, options) as (server, url):
                found = measure(url, server, documents, settings)
            for phase in found:
                phase.way += f", {runtime}" if settings.runtime else ""
            phases += found
    write_report(settings.output, settings, phases)


if __name__ == "__main__":
    main()
