"""A build killed twice (SIGKILL) against a service that fails now and then loses nothing."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from llm_stub import Act, llm_stub

CONTEXTS, SPECIFIC, GENERAL, CONCURRENCY = 250, 3, 1, 8


def write_corpus(path: Path) -> None:
    rng = random.Random(0)
    with path.open("w") as stream:
        for number in range(CONTEXTS + 10):
            words = " ".join("".join(rng.choices("abcdefghij", k=7)) for _ in range(60))
            text = f"Document {number} says {words}."
            stream.write(json.dumps({"text": text, "title": f"Document {number}"}) + "\n")


def decide(number: int) -> Act:
    """5 % of the attempts fail: refused for a moment, an error, no answer, or no JSON."""
    failures = (
        Act(status=429, headers={"Retry-After": "0.05"}),
        Act(status=500),
        Act(hang_up=True),
        Act(content="Certainly! Here are the prompts:"),
    )
    if number % 20 == 7:
        return failures[number // 20 % 4]
    return Act(stall=0.01)


def start(
    folder: Path, base: Path, url: str, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "icae", "pwc", "build"]
    command += ["--corpus", str(folder / "corpus.jsonl"), "--llm", url, "--model", "stub"]
    command += ["-o", str(folder / "out.jsonl"), "--base", str(base), "--tokens", "20-4000"]
    command += ["--contexts", str(CONTEXTS), "--specific", str(SPECIFIC)]
    command += ["--general", str(GENERAL), "--concurrency", str(CONCURRENCY), "--asks", "4"]
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_all_triplets_of_a_build_killed_twice_are_there_once(tmp_path, base, environment) -> None:
    write_corpus(tmp_path / "corpus.jsonl")
    with llm_stub(decide) as stub:
        for served in (80, 160):
            build = start(tmp_path, base, stub.url, environment)
            while len(stub.answered) < served:
                assert build.poll() is None, (tmp_path / "log.txt").read_text()
                time.sleep(0.005)
            build.send_signal(signal.SIGKILL)
            build.wait()
            assert not (tmp_path / "out.jsonl").exists(), "killed in the middle"
        last = start(tmp_path, base, stub.url, environment)
        assert last.wait() == 0, (tmp_path / "log.txt").read_text()
        paid = len(stub.answered)
        garbage = sum(decide(n).content is not None for n in range(len(stub.bodies)))
    rows = [
        json.loads(line)
        for name in ("out.jsonl", "out.test.jsonl")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert len(rows) == CONTEXTS * (SPECIFIC + GENERAL) == 1000
    assert len({row["id"] for row in rows}) == 1000
    assert len({(row["context"], row["prompt"]) for row in rows}) == 1000
    # Paid twice is at most what was in flight at each kill; garbage is asked for again.
    assert paid - garbage - CONTEXTS <= 2 * CONCURRENCY
