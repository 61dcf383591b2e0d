"""Files that something went wrong with: refused in a sentence, or a sound memory."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from icae.errors import MemoryFileError
from icae.memory import Memory, memory_bytes, memory_from_bytes
from word_memories import in_key_values

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2, 3, 10**9, 2**63, 10**400, 0.5, 1e308, "", "x", "0" * 64, "\ud800"),
    *([], {}, [1], {"layers": 1}, "slots", "tokens", "key-values", "BF16", "I8", "F32", "int8"),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in parsed JSON."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [p for key, item in items for p in [(*path, key), *places(item, (*path, key))]]


def disturb(rng: random.Random, value: Any) -> None:
    """Change, drop or swap something in parsed JSON."""
    first, second = (rng.choice(places(value)) for _ in range(2))
    holders = []
    for path in (first, second):
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        holders.append(holder)
    kind = rng.randrange(3)
    if kind == 0:
        holders[0][first[-1]] = rng.choice(ODD)
    elif kind == 1:
        del holders[0][first[-1]]
    elif first[: len(second)] != second and second[: len(first)] != first:
        one, other = holders[0][first[-1]], holders[1][second[-1]]
        holders[0][first[-1]], holders[1][second[-1]] = other, one


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bits flipped, stretches overwritten, lost, doubled or moved."""
    data = bytearray(content)
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 2, 8, 64, 4096)))
    kind = rng.randrange(6)
    if kind == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[start:end] = rng.randbytes(end - start)
    elif kind == 2:
        del data[start:end]
    elif kind == 3:
        data[start:start] = data[start:end]
    elif kind == 4:
        del data[start:]
    else:
        data += data[start:end]
    return bytes(data)


def mutated(rng: random.Random, memory: Memory, take_apart: Callable[[Memory], Any]) -> bytes:
    """The file of a memory with something wrong; half of them with digests that are right."""
    if rng.random() < 0.5:
        return damaged_bytes(rng, memory_bytes(memory))
    file = take_apart(memory)
    for _ in range(rng.randint(1, 2)):
        if rng.random() < 0.7:
            header = file.header
            disturb(rng, header)
            file.metadata["header"] = json.dumps(header)
        else:
            disturb(rng, file.entries)
    # Where even another writer could not go on, the digests stay as they were.
    for seal in (lambda f: f.spans_sealed(), lambda f: f.sealed()):
        try:
            seal(file)
            break
        except Exception:
            continue
    index = json.dumps({"__metadata__": file.metadata, **file.entries}).encode("utf-8")
    return len(index).to_bytes(8, "little") + index + file.data


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_mutated_files_are_refused_in_a_sentence_or_are_sound(mixed, taken_apart, count):
    memories = [in_key_values(mixed, dtype) for dtype in ("bfloat16", "int8")] + [mixed]
    unmeasured = [memory.with_documents(memory.documents[:1]) for memory in memories]
    refused = []
    for seed in range(count):
        rng = random.Random(seed)
        data = mutated(rng, rng.choice(memories + unmeasured), taken_apart)
        try:
            loaded = memory_from_bytes(data, where="upload")
        except MemoryFileError as error:
            refused.append(error)
        else:
            assert memory_from_bytes(memory_bytes(loaded), where="again") == loaded
    assert all(e.message.startswith("upload") and e.message[-1] == "." and e.fix for e in refused)
    assert len(refused) >= 0.9 * count
