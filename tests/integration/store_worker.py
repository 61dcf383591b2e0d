"""A process that works on a store until it is killed: ``python store_worker.py STORE SEED PREFIX``.

It says ``ready``, and ``done`` after every operation; with a number behind, it ends after so many.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from icae.memory import Memory
from icae.store import MemoryStore, NewMemory, create_store
from word_memories import make_provenance, word_memory

NAMES = 6
TEXTS = 9
PROVENANCE = make_provenance(hidden_size=64)


def memory_of(prefix: str, text: int) -> Memory:
    """A memory that is the same in every process: 64 to 1,300 tokens, 4 to 80 kB."""
    seed = [ord(prefix[0]), text]
    count = 32 * (2 if text % 3 else 40)
    numbers = np.random.default_rng(seed).integers(0, 500, count)
    words = " ".join(f"{prefix}{text}word{int(i)}" for i in numbers)
    return word_memory(words, name=prefix, provenance=PROVENANCE, seed=seed)


def memories_of(prefix: str) -> list[Memory]:
    return [memory_of(prefix, text) for text in range(TEXTS)]


def operations(
    store: MemoryStore, memories: list[Memory], seed: int, prefix: str
) -> Iterator[None]:
    """Add, remove and collect at random, each time that the next one is asked for.

    What is done depends on the seed and on the names that start with the prefix alone.
    """
    chance = random.Random(seed)
    while True:
        name, text = f"{prefix}{chance.randrange(NAMES)}", chance.randrange(TEXTS)
        act = chance.choices(["add", "rm", "drop", "gc"], weights=[6, 3, 1, 2])[0]
        own = names_of(store, prefix)
        if act == "add" or (act in ("rm", "drop") and name not in own):
            store.add([NewMemory(name=name, memory=memories[text])])
        elif act == "rm":
            store.remove_name(name)
        elif act == "drop":
            store.remove(own[name])
        else:
            store.collect()
        yield


def names_of(store: MemoryStore, prefix: str) -> dict[str, str]:
    """The key that each name of a worker stands for."""
    records = store.records(under=prefix)
    return {n: one.key for one in records for n in one.names if n.startswith(prefix)}


if __name__ == "__main__":
    path, seed, prefix, *most = sys.argv[1:]
    memories = memories_of(prefix)
    print("ready", flush=True)
    with create_store(path) as opened:
        steps = operations(opened, memories, int(seed), prefix)
        for _ in itertools.islice(steps, int(most[0]) if most else None):
            print("done", flush=True)
