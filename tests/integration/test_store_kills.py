"""A store whose writers are killed at any moment loses nothing and holds nothing half.

``ICAE_STORE_KILLS=200 python -m pytest tests/integration/test_store_kills.py -s --timeout 3000``
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_worker import memories_of, names_of, operations

from icae.store import create_store, open_store

KILLS = int(os.environ.get("ICAE_STORE_KILLS", "25"))
LONGEST_LIFE_S = 0.3
KILLS_PER_STORE = 20

Start = Callable[..., subprocess.Popen[str]]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX"),
]


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    """``start(path, seed, prefix, *operations)``: a worker."""
    worker = Path(__file__).with_name("store_worker.py")

    def run(path: Path, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(worker), str(path), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"TMPDIR": str(path.parent)},
        )

    return run


class Twin:
    """A store on which one worker's operations are done again, in peace."""

    def __init__(self, path: Path, prefix: str) -> None:
        self.store, self.prefix, self.memories = create_store(path), prefix, memories_of(prefix)

    def ends(self, seed: int, done: int) -> Iterator[dict[str, str]]:
        """The names after what was said to be done, then with the operation behind it."""
        steps = operations(self.store, self.memories, seed, self.prefix)
        for _ in range(done):
            next(steps)
        yield names_of(self.store, self.prefix)
        next(steps)
        yield names_of(self.store, self.prefix)


def held(path: Path, prefix: str) -> dict[str, str]:
    if not path.exists():
        return {}
    with open_store(path) as store:
        assert store.verify() == []
        return names_of(store, prefix)


def test_store_is_whole_after_every_kill(start: Start, tmp_path: Path) -> None:
    chance = random.Random(7)
    operations_done = kept = 0
    twins: dict[str, Twin] = {}
    for number in range(KILLS):
        folder = tmp_path / str(number // KILLS_PER_STORE)
        if number % KILLS_PER_STORE == 0:  # a fresh store, so that its creation is hit, too
            folder.mkdir()
            twins = {prefix: Twin(folder / f"{prefix}.db", prefix) for prefix in "pq"}
        path = folder / "memories.db"
        seeds = {prefix: chance.randrange(2**30) for prefix in ("pq" if number % 2 else "p")}
        workers = {prefix: start(path, seed, prefix) for prefix, seed in seeds.items()}
        for worker in workers.values():
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, LONGEST_LIFE_S))
        for worker in workers.values():
            worker.kill()
        for prefix, worker in workers.items():
            done = worker.communicate()[0].count("done\n")
            found, ends = held(path, prefix), twins[prefix].ends(seeds[prefix], done)
            if found != next(ends):
                assert found == next(ends), f"kill {number} of {prefix} after {done}"
                kept += 1
            operations_done += done
    print(
        f"{KILLS} kills, {operations_done} operations acknowledged, {kept} more were in the store, "
        "nothing lost, nothing half-written"
    )


def test_two_writers_at_once_lose_nothing(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "memories.db"
    workers = {prefix: start(path, 3, prefix, 25) for prefix in "pq"}
    outputs = {prefix: worker.communicate()[0] for prefix, worker in workers.items()}
    for prefix, output in outputs.items():
        assert workers[prefix].returncode == 0
        assert output.count("done\n") == 25
        assert held(path, prefix) == next(Twin(tmp_path / prefix, prefix).ends(3, 25))
