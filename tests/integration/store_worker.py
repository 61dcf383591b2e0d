"""A process that works on a store until it is killed.

python store_worker.py STORE SEED PREFIX [OPERATIONS]

It says ``try {...}`` before every operation and ``done {...}`` after it, a line each.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from icae.memory import Memory
from icae.store import NewMemory, compressor_settings, create_store, memory_key
from word_memories import make_provenance, word_memory

NAMES = 6
TEXTS = 9
WIDTH = 64
SETTINGS = compressor_settings(ratio=4, verify=True)
PROVENANCE = make_provenance(hidden_size=WIDTH)


def memory_of(prefix: str, text: int) -> Memory:
    """A memory that is the same in every process: 64 to 1,300 tokens, 4 to 80 kB."""
    rng = np.random.default_rng([ord(prefix[0]), text])
    count = 32 * (2 if text % 3 else 40)
    words = [f"{prefix}{text}word{int(i)}" for i in rng.integers(0, 500, count)]
    return word_memory(
        " ".join(words), name=prefix, provenance=PROVENANCE, seed=[ord(prefix[0]), text]
    )


def key_of(memory: Memory) -> str:
    return memory_key(memory.documents[0].sha256, PROVENANCE, SETTINGS)


def say(what: str, **values: object) -> None:
    print(what, json.dumps(values), flush=True)


def work(location: str, seed: int, prefix: str, operations: int | None) -> None:
    """Add, remove and collect at random."""
    chance = random.Random(seed)
    memories = [memory_of(prefix, text) for text in range(TEXTS)]
    keys = [key_of(memory) for memory in memories]
    say("ready")
    store = create_store(location)
    steps = itertools.count() if operations is None else range(operations)
    for _ in steps:
        name, text = f"{prefix}{chance.randrange(NAMES)}", chance.randrange(TEXTS)
        act = chance.choices(["add", "rm", "drop", "gc"], weights=[6, 3, 1, 2])[0]
        own = {n: r.key for r in store.records() for n in r.names if n.startswith(prefix)}
        if act in ("rm", "drop") and name not in own:
            act = "add"
        key = keys[text] if act == "add" else own.get(name)
        say("try", act=act, name=name, key=key)
        if act == "add":
            store.add([NewMemory(name=name, memory=memories[text], settings=SETTINGS)])
        elif act == "rm":
            store.remove_name(name)
        elif act == "drop":
            store.remove(str(key))
        else:
            store.collect()
        say("done", act=act, name=name, key=key)
    store.close()


if __name__ == "__main__":
    work(
        sys.argv[1],
        int(sys.argv[2]),
        sys.argv[3],
        int(sys.argv[4]) if len(sys.argv) > 4 else None,
    )
