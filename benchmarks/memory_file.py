"""What it costs to load a memory of keys and values, against reading its bytes once.

python benchmarks/memory_file.py [--tokens 30000] [--ratio 4] [--dtype bfloat16] [--rounds 9]

A memory of random numbers in the shape of SmolLM2-135M's cache is saved once, its text and the
fidelity of every token with it. Then, in turn and for every round:

- read: the file once through SHA-256, in pieces of 256 KB (`hashlib.file_digest`);
- load: `Memory.load`, all checks, nothing left out;
- use: load, and every number read once more out of the memory, as a decoder would.

Printed are the median of each, and the ratio of the second to the first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from icae.config.spans import plan_spans
from icae.config.types import KeyValueShape
from icae.memory import KeyValueSlots, Memory, MemoryDocument, Provenance, Span, TokenFidelity
from icae.memory.provenance import KEY_VALUE_DTYPES, KeyValueDtype

SHAPE = KeyValueShape(layers=30, heads=3, width=64)
SPAN_LENGTH = 128


def random_memory(tokens: int, ratio: float, dtype: KeyValueDtype) -> Memory:
    """A memory of one document of words, a token each."""
    rng = np.random.default_rng(0)
    text = "".join(f"{number:05x} " for number in rng.integers(0, 2**20, tokens))
    spans = []
    for plan in plan_spans(tokens, span_length=SPAN_LENGTH, ratio=ratio):
        pairs = rng.standard_normal((plan.slots, *SHAPE.axes), dtype=np.float32)
        fidelity = TokenFidelity(
            reproduced=rng.random(plan.length) < 0.9,
            confidence=rng.integers(0, 256, plan.length).astype(np.uint8),
        )
        spans.append(
            Span(
                token_start=plan.token_start,
                token_end=plan.token_end,
                char_start=6 * plan.token_start,
                char_end=6 * plan.token_end,
                payload=KeyValueSlots(pairs_KY2HW=pairs, dtype=dtype),
                ratio=ratio,
                fidelity=fidelity.share,
                token_fidelity=fidelity,
                recall=0.5,
            )
        )
    made_by = dict.fromkeys(("base_hash", "adapter_hash", "tokenizer_hash"), "0" * 64)
    provenance = Provenance(
        base_model="random",
        adapter="random",
        layout="default",
        hidden_size=576,
        key_values=SHAPE,
        slot_dtype=dtype,
        **made_by,
    )
    document = MemoryDocument.of_text(text, spans, name="random", token_ids_sha256=None)
    return Memory(documents=(document,), provenance=provenance)


def read(path: Path) -> object:
    """The bytes of a file, once, through SHA-256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def use(path: Path) -> object:
    """The memory of a file, and every number in it."""
    payloads = [span.payload for span in Memory.load(path).spans]
    return [
        int(run.codes_KY2HW.view(np.uint8).sum(dtype=np.uint64))
        for payload in payloads
        if isinstance(payload, KeyValueSlots)
        for run in payload.runs
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--ratio", type=float, default=4.0)
    parser.add_argument("--dtype", choices=KEY_VALUE_DTYPES, default="bfloat16")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    actions = {"read": read, "load": Memory.load, "use": use}
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.icae"
        memory = random_memory(options.tokens, options.ratio, options.dtype)
        memory.save(path)
        size, slots = path.stat().st_size, memory.slot_count
        for _ in range(options.rounds):
            for name, action in actions.items():
                start = time.perf_counter()
                action(path)
                seconds[name].append(time.perf_counter() - start)
    median = {name: round(statistics.median(own), 4) for name, own in seconds.items()}
    figures = {
        "slots": slots,
        "bytes": size,
        "seconds": median,
        "load_over_read": round(median["load"] / median["read"], 2),
        "use_over_read": round(median["use"] / median["read"], 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
