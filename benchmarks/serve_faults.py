"""Malformed uploads and one greedy key: what do the others at the server notice?

python -m benchmarks.serve_faults --output docs/results/serve-load [--quick]
    [--uploads 1000] [--rounds 10] [--most-seconds 900] [--seed 0]

Files that are broken in many ways (HTML of unclosed tags, PDF, Word, e-books, zip, UTF-16,
RTF) are uploaded, four at a time, while another client asks one question after the other: no upload
may get a 500, and the longest answer is the stall. One key has 200 requests under way and
another one asks once: how long its first token takes, against an idle server. The tiny random model
of the recorded tests answers at 127.0.0.1.
"""

from __future__ import annotations

import argparse
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


def question(tokens: int, **more: object) -> dict[str, object]:
    said = [{"role": "user", "content": "Where is the inn?"}]
    return {"model": "tiny", "messages": said, "max_tokens": tokens, **more}


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


def first_token_s(http: httpx2.Client) -> float:
    """How long the first text of a streamed answer takes, s."""
    begin = time.monotonic()
    with http.stream("POST", "/v1/chat/completions", json=question(SHORT, stream=True)) as answer:
        for line in answer.iter_lines():
            if '"content": "' in line and '"content": ""' not in line:
                return time.monotonic() - begin
    raise SystemExit("An answer without text.")


def queued_together(server: Server, keys: dict[str, str], rounds: int) -> dict[str, Any]:
    """First token of one key, alone and while another has 200 requests under way."""

    def client(name: str) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {keys[name]}"}
        limits = httpx2.Limits(max_connections=GREEDY)
        return httpx2.Client(base_url=server.url, headers=headers, timeout=300, limits=limits)

    one, many = client("one"), client("greedy")
    idle = [first_token_s(one) for _ in range(rounds + 1)][1:]
    statuses: Counter[int] = Counter()
    beside, waiting = [], []

    def greedy() -> None:
        statuses[many.post("/v1/chat/completions", json=question(LONG)).status_code] += 1

    for _ in range(rounds):
        threads = [threading.Thread(target=greedy) for _ in range(GREEDY)]
        for thread in threads:
            thread.start()
        while not (waits := queued(one)) and any(thread.is_alive() for thread in threads):
            time.sleep(0.005)
        waiting.append(waits)
        beside.append(first_token_s(one))
        for thread in threads:
            thread.join()
    return {
        "rounds": rounds,
        "requests_of_the_greedy_key": GREEDY,
        "statuses_of_the_greedy_key": dict(statuses),
        "waiting_when_the_other_asks": waiting,
        "first_token_idle_s": round(statistics.median(idle), 4),
        "first_token_beside_s": round(statistics.median(beside), 4),
        "longest_first_token_beside_s": round(max(beside), 4),
        "ratio": round(statistics.median(beside) / statistics.median(idle), 2),
    }


def queued(http: httpx2.Client) -> int:
    """How many answers wait for the model."""
    lines = http.get("/metrics").text.splitlines()
    return next(int(float(x.split()[1])) for x in lines if x.startswith("icae_chats_waiting "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--uploads", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--most-seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="50 uploads, 2 rounds")
    settings = parser.parse_args()
    if settings.quick:
        settings.uploads, settings.rounds = 50, 2
    with tempfile.TemporaryDirectory() as folder:
        keys_file = Path(folder) / "keys.txt"
        keys = {name: add_key(keys_file, name) for name in ("greedy", "one")}
        open_to_all = Server(store=Path(folder) / "a.db", port=free_port())
        options = ["--keys", str(keys_file), "--max-waiting", "256", "--max-per-key", "200"]
        keyed = Server(store=Path(folder) / "b.db", port=free_port(), options=options)
        open_to_all.start()
        keyed.start()
        try:
            found = {"one_greedy_key": queued_together(keyed, keys, settings.rounds)}
            print(json.dumps(found, indent=1), flush=True)
            found["malformed"] = malformed(open_to_all, settings)
        finally:
            open_to_all.kill()
            keyed.kill()
    print(json.dumps(found["malformed"], indent=1))
    if settings.output is not None:
        settings.output.mkdir(parents=True, exist_ok=True)
        (settings.output / "serve-faults.json").write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(found["malformed"]["server_mistakes"] > 0)


if __name__ == "__main__":
    main()
