"""What a memory store costs beside the encoding of the documents in it.

python benchmarks/store.py --texts corpus.jsonl.xz [--documents 1000] [--sample 6]

One run measures, on one machine:

- encoding: texts of about 512 tokens through `icae.Engine.compress` (4x, fidelity measured,
  as `icae store add` does it), wall time a document;
- add: memories of the same shape with random slots, each in its own durable transaction;
- add in batches: the same memories, 50 a transaction, into a second store;
- load and search on the full store: median and 95th percentile;
- for comparison: the same memory as a plain file (`save`, `load`).

Encoding and adding alternate while the sample lasts, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import platform
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from icae.memory import Embeddings, Memory, MemoryDocument, hash_token_ids
from icae.store import MemoryStore, NewMemory, retrieve

TOKENS = 512
BATCH = 50
LOADS = 200
SEARCHES = 200
QUESTION_WORDS = 8


def timed(action: Callable[[], object]) -> float:
    """Wall time of an action, s."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def texts_of(path: Path, count: int, characters: int) -> list[str]:
    """Texts of one length from a corpus of JSON lines with a key ``text``.

    They are cut at even distances, and overlap where the corpus is short.
    """
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        corpus = "\n\n".join(json.loads(line)["text"] for line in lines)
    stride = (len(corpus) - characters) // count
    if stride < characters // 8:
        raise SystemExit(f"{path} has only {len(corpus)} characters")
    return [corpus[at * stride : at * stride + characters] for at in range(count)]


def variant(memory: Memory, text: str, seed: int) -> Memory:
    """A memory of the same shape with other slots and, as far as it goes, another text."""
    document = memory.documents[0]
    assert document.source is not None
    text = text[: document.chars].ljust(document.chars, ".")
    rng = np.random.default_rng(seed)
    spans = [
        replace(
            span,
            payload=Embeddings(slots_KD=rng.normal(size=span.slots_KD.shape).astype(np.float32)),
        )
        for span in document.spans
    ]
    ids = hash_token_ids(np.array([seed], dtype=np.int64))
    changed = MemoryDocument.of_text(text, spans, name=document.name, token_ids_sha256=ids)
    return replace(memory, documents=(changed,))


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(seconds)
    return {
        "median_ms": round(1000 * statistics.median(ordered), 3),
        "p95_ms": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 3),
    }


def encode_and_add(
    engine: Any, sample: Sequence[str], store: MemoryStore
) -> tuple[list[Memory], list[float], list[float]]:
    """Alternate encoding and adding; memories, encoding times, adding times."""
    memories: list[Memory] = []
    encoding, adding = [], []
    engine.compress(sample[0], ratio=4)  # the first pass also warms caches up
    for number, text in enumerate(sample):
        start = time.perf_counter()
        memories.append(engine.compress(text, ratio=4, name=f"sample-{number}"))
        encoding.append(time.perf_counter() - start)
        item = NewMemory(name=f"sample-{number}", memory=memories[-1])
        adding.append(timed(lambda item=item: store.add([item])))
    return memories, encoding, adding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True, help="JSON lines with a key text")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--sample", type=int, default=6, help="documents that are encoded")
    parser.add_argument("--folder", type=Path, default=None, help="where the stores are made")
    arguments = parser.parse_args()

    import torch

    from icae import engine as api

    engine = api.load()
    first = texts_of(arguments.texts, 8, 20_000)[0]
    characters = int(len(first) * TOKENS / engine.count_tokens(first))
    texts = texts_of(arguments.texts, arguments.sample + arguments.documents, characters)
    sample, rest = texts[: arguments.sample], texts[arguments.sample :]
    chance = random.Random(0)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "memories.db"
        store = MemoryStore.create(path)
        memories, encoding, adding_sample = encode_and_add(engine, sample, store)
        items = [
            NewMemory(name=f"doc-{i}", memory=variant(memories[i % len(memories)], text, i))
            for i, text in enumerate(rest)
        ]
        adding = [timed(lambda item=item: store.add([item])) for item in items]
        with MemoryStore.create(Path(folder) / "batches.db") as batches:
            in_batches = sum(
                timed(lambda at=at: batches.add(items[at : at + BATCH]))
                for at in range(0, len(items), BATCH)
            )
        again = [timed(lambda item=item: store.add([item])) for item in items[:LOADS]]
        file = Path(folder) / "memory.icae"
        save = [timed(lambda item=item: item.memory.save(file)) for item in items[:LOADS]]
        load_file = [timed(lambda: Memory.load(file)) for _ in range(LOADS)]
        names = [chance.choice(items).name for _ in range(LOADS)]
        load = [timed(lambda name=name: store.load(name)) for name in names]
        read = [timed(lambda name=name: store._content(name)) for name in names]
        questions = [
            " ".join(chance.sample(chance.choice(rest).split(), QUESTION_WORDS))
            for _ in range(SEARCHES)
        ]
        search = [timed(lambda q=q: store.search(q, limit=10)) for q in questions]
        found = [timed(lambda q=q: retrieve(store, q, budget=512)) for q in questions[:50]]
        verify = timed(lambda: print("problems:", store.verify(), file=sys.stderr))
        size = path.stat().st_size
        store.close()

    encode_s = statistics.mean(encoding)
    add_s = statistics.mean(adding)
    result = {
        "documents": len(items),
        "tokens_per_document": round(statistics.mean(m.tokens for m in memories)),
        "memory_bytes": size // (len(items) + len(sample)),
        "encode_s_per_document": round(encode_s, 4),
        "add_s_per_document": round(add_s, 4),
        "add_documents_per_s": round(1 / add_s, 2),
        "add_over_encode": round(add_s / encode_s, 4),
        "add_over_encode_alternating": round(sum(adding_sample) / sum(encoding), 4),
        "add_in_batches_over_encode": round(in_batches / len(items) / encode_s, 4),
        "add_again": spread(again),
        "save_file": spread(save),
        "load_file": spread(load_file),
        "load": spread(load),
        "read_bytes": spread(read),
        "load_over_load_file": round(statistics.median(load) / statistics.median(load_file), 3),
        "search": spread(search),
        "search_over_encode": round(statistics.median(search) / encode_s, 5),
        "retrieve_512": spread(found),
        "verify_s": round(verify, 2),
        "store_bytes": size,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, "
        f"{torch.get_num_threads()} torch threads, load {os.getloadavg()[0]:.1f}",
        "versions": f"SQLite {sqlite3.sqlite_version}, Python {platform.python_version()}",
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
