"""Malformed uploads and one greedy key: what do the others at the server notice?

python -m benchmarks.serve_faults --output docs/results/serve-load [--quick]
    [--uploads 1000] [--rounds 10] [--most-seconds 900] [--seed 0]

Files that are broken in many ways (HTML of unclosed tags, PDF, Word, e-books, zip, UTF-16,
RTF) are uploaded, four at a time, while another client asks one question after the other: no upload
may get a 500, and the longest answer is the stall. One key has 200 requests under way and
another one asks once: how long its first token takes, against an idle server. The tiny random model
of the recorded tests answers at 127.0.0.1, or the shipped one.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pypdf
from benchmarks.serve_kills import Server, free_port

from icae.serve.keys import add_key

UPLOADERS = 4
"""Malformed files that are uploaded at a time."""
GREEDY = 200
"""Requests of the greedy key at a time."""
LONG = 64
"""Tokens of each answer to it; those of others have `SHORT`."""
SHORT = 8
DOCUMENT = "The inn by the river was built in 1720. Anna keeps it; the fox sleeps behind it. " * 8
"""What both keys ask about, as a memory."""
PAUSE_S = 0.05
"""How long the other client waits after an answer, s."""
SETTLED_S = 2.0
"""How long the other client asks before uploads begin, s."""


def damaged(draw: random.Random, data: bytes) -> bytes:
    """A file of which a few bytes are others, and often the end is missing."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 20)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed[: draw.choice([len(changed), draw.randrange(1, len(changed))])])


def html(draw: random.Random) -> bytes:
    tags = draw.choices(["div", "b", "table", "p", "a href='x", "!--", "svg", "li"], k=4)
    return b"<html><body>" + "".join(f"<{tag}>" for tag in tags).encode() * draw.randint(250, 750)


def pdf(draw: random.Random) -> bytes:
    writer, made = pypdf.PdfWriter(), io.BytesIO()
    for _ in range(draw.randint(1, 5)):
        writer.add_blank_page(200, 200)
    writer.write(made)
    return damaged(draw, made.getvalue())


def packed(draw: random.Random) -> bytes:
    """A zip, a Word document or an e-book."""
    names = draw.choice([["a.txt"], ["word/document.xml"], ["mimetype", "META-INF/container.xml"]])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, "application/epub+zip" if name == "mimetype" else html(draw))
    return made.getvalue() if draw.random() < 0.3 else damaged(draw, made.getvalue())


def utf_16(draw: random.Random) -> bytes:
    return draw.choice([b"\xff\xfe", b"\xfe\xff"]) + draw.randbytes(draw.randint(1, 4000))


def rtf(draw: random.Random) -> bytes:
    parts = [b"{", b"}", b"\\b", b"\\'", b"\\u-1?", b"\\bin99999 ", b"\\*", b" word "]
    return b"{\\rtf1" + b"".join(draw.choices(parts, k=draw.randint(100, 20_000)))


KINDS: dict[str, tuple[str, Callable[[random.Random], bytes]]] = {
    "html": ("a.html", html),
    "pdf": ("a.pdf", pdf),
    "zip, docx, epub": ("a.docx", packed),
    "utf-16": ("a.txt", utf_16),
    "rtf": ("a.rtf", rtf),
}


@dataclass(kw_only=True)
class Other:
    """A client that asks one question after the other; how long each answer took, s."""

    url: str
    ended: threading.Event = field(default_factory=threading.Event)
    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    def run(self) -> None:
        with httpx2.Client(base_url=self.url, timeout=120) as http:
            while not self.ended.is_set():
                begin = time.monotonic()
                answer = http.post("/v1/chat/completions", json=question(SHORT))
                self.seconds.append(time.monotonic() - begin)
                self.failed += answer.status_code != 200
                time.sleep(PAUSE_S)


def question(
    tokens: int, said: str = "Where is the inn?", *, model: str = "tiny", memory: str | None = None
) -> dict[str, object]:
    parts: list[dict[str, str]] = [{"type": "text", "text": said}]
    parts += [] if memory is None else [{"type": "memory", "id": memory}]
    messages = [{"role": "user", "content": parts}]
    return {"model": model, "messages": messages, "max_tokens": tokens}


def rss_mb(server: Server) -> tuple[float, float]:
    """Memory of the server, and of the processes that read its files, MB."""
    process = psutil.Process(server.pid)
    own = process.memory_info().rss / 1e6
    return round(own, 1), round(sum(c.memory_info().rss for c in process.children()) / 1e6, 1)


def upload_all(server: Server, settings: argparse.Namespace) -> dict[str, Counter[str]]:
    """Upload malformed files, those of the kinds in turn; gives what each kind was told."""
    told: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    numbers, end = iter(range(settings.uploads)), time.monotonic() + settings.most_seconds
    lock = threading.Lock()

    def upload() -> None:
        with httpx2.Client(base_url=server.url, timeout=120) as http:
            while time.monotonic() < end:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                kind = list(KINDS)[number % len(KINDS)]
                name, make = KINDS[kind]
                data = make(random.Random(f"{settings.seed} {number}"))
                answer = http.post("/v1/memories", files={"file": (name, data)})
                with lock:
                    told[kind][str(answer.status_code)] += 1

    threads = [threading.Thread(target=upload) for _ in range(UPLOADERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


def malformed(server: Server, settings: argparse.Namespace) -> dict[str, Any]:
    """What malformed uploads were told, and what another client noticed of them."""
    other = Other(url=server.url)
    asking = threading.Thread(target=other.run)
    upload_all(server, argparse.Namespace(**{**vars(settings), "uploads": 20}))  # all is loaded
    asking.start()
    time.sleep(SETTLED_S)
    before, alone, begin = rss_mb(server), len(other.seconds), time.monotonic()
    told = upload_all(server, settings)
    seconds, after = time.monotonic() - begin, rss_mb(server)
    other.ended.set()
    asking.join()
    beside = other.seconds[alone:]
    statuses: Counter[str] = sum(told.values(), Counter())
    return {
        "uploads": statuses.total(),
        "seconds": round(seconds),
        "statuses": {kind: dict(sorted(found.items())) for kind, found in told.items()},
        "server_mistakes": sum(n for status, n in statuses.items() if status == "500"),
        "answers_of_the_other": len(beside),
        "failed_of_the_other": other.failed,
        "longest_answer_alone_s": round(max(other.seconds[:alone]), 3),
        "median_answer_s": round(statistics.median(beside), 3),
        "longest_answer_s": round(max(beside), 3),
        "rss_mb_before": before,
        "rss_mb_after": after,
    }


async def first_token_s(
    server: Server, http: httpx2.AsyncClient, body: dict[str, object]
) -> tuple[float, float]:
    """How long the first text of a streamed answer takes, s: by the clock, and of the processor."""
    process = psutil.Process(server.pid)
    begin, before = time.monotonic(), sum(process.cpu_times()[:2])
    asked = {**body, "stream": True}
    async with http.stream("POST", "/v1/chat/completions", json=asked) as answer:
        async for line in answer.aiter_lines():
            if '"content": "' in line and '"content": ""' not in line:
                return time.monotonic() - begin, sum(process.cpu_times()[:2]) - before
    raise SystemExit("An answer without text.")


async def queued_together(server: Server, keys: dict[str, str], rounds: int) -> dict[str, Any]:
    """First token of one key, alone and while another has 200 requests under way."""

    def client(name: str) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {keys[name]}"}
        limits = httpx2.Limits(max_connections=GREEDY)
        return httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=600, limits=limits)

    one, many = client("one"), client("greedy")
    bodies = {}
    for name, http, tokens in (("one", one, SHORT), ("greedy", many, LONG)):
        model = (await http.get("/v1/models")).json()["data"][0]["id"]
        made = (await http.post("/v1/memories", json={"text": DOCUMENT})).json()
        while made["status"] == "in_progress":
            await asyncio.sleep(0.1)
            made = (await http.get(f"/v1/memories/{made['id']}")).json()
        said = "Where is the inn?" if name == "one" else "Write a long story about the fox."
        bodies[name] = question(tokens, said, model=model, memory=made["id"])
    idle = [await first_token_s(server, one, bodies["one"]) for _ in range(rounds + 1)][1:]
    statuses: Counter[int] = Counter()
    beside, waiting, draw = [], [], random.Random(0)

    async def greedy() -> None:
        while True:
            answer = await many.post("/v1/chat/completions", json=bodies["greedy"])
            statuses[answer.status_code] += 1

    tasks = [asyncio.create_task(greedy()) for _ in range(GREEDY)]
    while not statuses:
        await asyncio.sleep(0.01)
    answers, begin = statuses[200], sum(psutil.Process(server.pid).cpu_times()[:2])
    for _ in range(rounds):
        await asyncio.sleep(draw.random())
        waiting.append(await queued(one))
        beside.append(await first_token_s(server, one, bodies["one"]))
    seconds = sum(psutil.Process(server.pid).cpu_times()[:2]) - begin
    answers = statuses[200] - answers
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "rounds": rounds,
        "requests_of_the_greedy_key": GREEDY,
        "statuses_of_the_greedy_key": dict(statuses),
        "answers_per_processor_s_of_the_greedy_key": round(answers / seconds, 2),
        "waiting_when_the_other_asks": waiting,
        **{
            f"first_token_by_{name}": {
                "idle_s": round(statistics.median(times[at] for times in idle), 4),
                "beside_s": round(statistics.median(times[at] for times in beside), 4),
                "longest_beside_s": round(max(times[at] for times in beside), 4),
                "ratio": round(
                    statistics.median(times[at] for times in beside)
                    / statistics.median(times[at] for times in idle),
                    2,
                ),
            }
            for at, name in enumerate(("clock", "processor"))
        },
    }


async def queued(http: httpx2.AsyncClient) -> int:
    """How many answers wait for the model."""
    lines = (await http.get("/metrics")).text.splitlines()
    return next(int(float(x.split()[1])) for x in lines if x.startswith("icae_chats_waiting "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--uploads", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--most-seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--shipped", action="store_true", help="the shipped model has the greedy key; no uploads"
    )
    parser.add_argument("--quick", action="store_true", help="50 uploads, 2 rounds")
    settings = parser.parse_args()
    if settings.quick:
        settings.uploads, settings.rounds = 50, 2
    with tempfile.TemporaryDirectory() as folder:
        keys_file = Path(folder) / "keys.txt"
        keys = {name: add_key(keys_file, name) for name in ("greedy", "one")}
        options = ["--keys", str(keys_file), "--max-waiting", "256", "--max-per-key", "200"]
        model = {"model": ()} if settings.shipped else {}
        keyed = Server(store=Path(folder) / "b.db", port=free_port(), options=options, **model)
        with keyed.running():
            found = {"one_greedy_key": asyncio.run(queued_together(keyed, keys, settings.rounds))}
        print(json.dumps(found, indent=1), flush=True)
        if not settings.shipped:
            with Server(store=Path(folder) / "a.db", port=free_port()).running() as open_to_all:
                found["malformed"] = malformed(open_to_all, settings)
            print(json.dumps(found["malformed"], indent=1))
    if settings.output is not None:
        settings.output.mkdir(parents=True, exist_ok=True)
        name = "serve-greedy-key.json" if settings.shipped else "serve-faults.json"
        (settings.output / name).write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(not settings.shipped and found["malformed"]["server_mistakes"] > 0)


if __name__ == "__main__":
    main()
