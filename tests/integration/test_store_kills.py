"""A store whose writers are killed at any moment loses nothing and holds nothing half.

``ICAE_STORE_KILLS=200 python -m pytest tests/integration/test_store_kills.py -s --timeout 3000``
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import store_worker

from icae.store import open_store

WORKER = Path(store_worker.__file__)
KILLS = int(os.environ.get("ICAE_STORE_KILLS", "25"))
LONGEST_LIFE_S = 0.3
KILLS_PER_STORE = 20

Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")


@dataclass(frozen=True)
class State:
    """What a store holds: a key for each name, and all keys."""

    names: frozenset[tuple[str, str]] = frozenset()
    keys: frozenset[str] = frozenset()

    def after(self, operation: dict[str, str]) -> State:
        """The state after an operation."""
        act, name, key = operation["act"], operation["name"], operation["key"]
        names = dict(self.names)
        keys = set(self.keys)
        if act == "add":
            names[name] = key
            keys.add(key)
        elif act == "rm":
            del names[name]
        elif act == "drop":
            names = {n: k for n, k in names.items() if k != key}
            keys.discard(key)
        else:
            keys &= set(names.values())
        return State(names=frozenset(names.items()), keys=frozenset(keys))

    def own(self, prefix: str) -> frozenset[tuple[str, str]]:
        """The names of one worker."""
        return frozenset(item for item in self.names if item[0].startswith(prefix))


@dataclass(frozen=True)
class Life:
    """What a worker did before it was killed."""

    prefix: str
    done: tuple[dict[str, str], ...]
    begun: dict[str, str] | None

    def ends(self, start: State) -> list[State]:
        """The states that a store may be in afterwards: with what was begun, or without."""
        state = start
        for operation in self.done:
            state = state.after(operation)
        return [state] if self.begun is None else [state, state.after(self.begun)]


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    """``start(path, seed, prefix, *operations)``: a worker."""

    def run(path: Path, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(WORKER), str(path), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"TMPDIR": str(path.parent)},
        )

    return run


def live(start: Start, path: Path, chance: random.Random, prefixes: str) -> list[Life]:
    """Let workers run for a random time, then kill them all."""
    workers = [start(path, chance.randrange(2**30), prefix) for prefix in prefixes]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline().startswith("ready")
    time.sleep(chance.uniform(0, LONGEST_LIFE_S))
    for worker in workers:
        worker.kill()
    return [_life(worker, prefix) for worker, prefix in zip(workers, prefixes, strict=True)]


def _life(worker: subprocess.Popen[str], prefix: str) -> Life:
    output, _ = worker.communicate()
    done: list[dict[str, str]] = []
    begun = None
    for line in output.splitlines(keepends=True):
        if not line.endswith("\n"):
            continue  # killed while it spoke
        word, _, values = line.partition(" ")
        begun = json.loads(values) if word == "try" else None
        if word == "done":
            done.append(json.loads(values))
    return Life(prefix=prefix, done=tuple(done), begun=begun)


def state_of(path: Path) -> State:
    """What a store holds, after it passed every check."""
    if not path.exists():
        return State()
    with open_store(str(path)) as store:
        assert store.verify() == []
        records = store.records()
        for record in records[:2]:
            memory = store.load(record.key)
            prefix, text = memory.documents[0].name, memory.documents[0].source or ""
            number = int(text.removeprefix(prefix).partition("word")[0])
            expected = store_worker.memory_of(prefix, number)
            assert memory == expected
    return State(
        names=frozenset((name, record.key) for record in records for name in record.names),
        keys=frozenset(record.key for record in records),
    )


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Path]:
    """A fresh store every so many kills, so that its creation is hit, too."""

    def fresh() -> Iterator[Path]:
        for number in range(1000):
            folder = tmp_path / str(number)
            folder.mkdir()
            yield from [folder / "memories.db"] * KILLS_PER_STORE

    return fresh()


@pytest.mark.slow
def test_store_is_whole_after_every_kill(start: Start, paths: Iterator[Path]) -> None:
    chance = random.Random(7)
    begun = kept = operations = 0
    state, last = State(), None
    for number in range(KILLS):
        path = next(paths)
        state, last = (state, path) if path == last else (State(), path)
        alone = number % 2 == 0
        lives = live(start, path, chance, "p" if alone else "pq")
        found = state_of(path)
        for one in lives:
            ends = one.ends(state)
            if alone:
                assert found in ends, f"kill {number}: {one}"
            else:  # the other worker's `gc` may have dropped what lost its name
                assert found.own(one.prefix) in [end.own(one.prefix) for end in ends]
            operations += len(one.done)
            begun += one.begun is not None
            kept += one.begun is not None and found.own(one.prefix) == ends[-1].own(one.prefix)
        assert {key for _, key in found.names} <= found.keys
        state = found
    print(
        f"{KILLS} kills, {operations} operations acknowledged, {begun} processes killed in an "
        f"operation ({kept} of these are in the store), nothing lost, nothing half-written"
    )


@pytest.mark.slow
def test_two_writers_at_once_lose_nothing(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "memories.db"
    workers = {prefix: start(path, 3, prefix, 25) for prefix in "pq"}
    lives = [_life(worker, prefix) for prefix, worker in workers.items()]
    assert [worker.returncode for worker in workers.values()] == [0, 0]
    found = state_of(path)
    for one in lives:
        assert len(one.done) == 25
        assert found.own(one.prefix) == one.ends(State())[0].own(one.prefix)
