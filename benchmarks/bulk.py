"""Throughput of `icae bulk` with Ray workers against one process.

    python benchmarks/bulk.py --documents 64 --tokens 256 --workers 2
    python benchmarks/bulk.py --encoder waiting --documents 400 --workers 2

Both runs do the same blocks, and their files are compared byte for byte. `engine` is the default
model, one thread a worker. `waiting` takes a fixed time a document and no processor, as a device
would: what is left then is what Ray itself costs. Rates are taken from the first finished block
to the last, so that starting Ray and loading models is given apart.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from icae.evals.metadata import hardware
from icae.memory import Embeddings, Memory, MemoryDocument, Provenance, Span
from icae.serve.bulk import BulkJob, open_engine, run_bulk, run_here
from icae.serve.bulk.ray import RayRunner
from icae.serve.bulk.run import Runner

DOCUMENT = Path(__file__).parents[1] / "examples" / "pep-0347.txt"
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Waiting:
    """Waits for each document, then makes a memory of one slot."""

    seconds: float

    def compress_many(
        self, texts: Sequence[str], *, ratio: float, names: Sequence[str], verify: bool
    ) -> list[Memory]:
        time.sleep(self.seconds * len(texts))
        provenance = Provenance(
            base_model="none",
            base_hash="0" * 64,
            adapter="waiting",
            adapter_hash="0" * 64,
            tokenizer_hash="0" * 64,
            layout="default",
            hidden_size=1,
            key_values=None,
            slot_dtype="float32",
        )
        return [
            Memory(documents=(_one_span(text, name),), provenance=provenance)
            for text, name in zip(texts, names, strict=True)
        ]


def _one_span(text: str, name: str) -> MemoryDocument:
    """A document of one token and one slot."""
    span = Span(
        token_start=0,
        token_end=1,
        char_start=0,
        char_end=len(text),
        payload=Embeddings(slots_KD=np.zeros((1, 1), dtype=np.float32)),
        ratio=1.0,
        fidelity=None,
    )
    return MemoryDocument.of_text(text, [span], name=name, token_ids_sha256="0" * 64)


def write_input(path: Path, *, documents: int, tokens: int) -> None:
    """Documents of about so many tokens, each from another place of one text."""
    text, length = DOCUMENT.read_text(encoding="utf-8"), tokens * CHARACTERS_PER_TOKEN
    with path.open("w", encoding="utf-8") as file:
        for i in range(documents):
            start = i * 97 % max(1, len(text) - length)
            file.write(json.dumps({"id": str(i), "text": text[start : start + length]}) + "\n")


def measure(job: BulkJob, runner: Runner) -> dict[str, float]:
    """Seconds in all and to the first finished block; documents a second after that."""
    begin, ticks = time.perf_counter(), [(0.0, 0)]
    run_bulk(
        job, runner, on_progress=lambda done, _: ticks.append((time.perf_counter() - begin, done))
    )
    work = [tick for tick in ticks if tick[1]]
    (first, had), (last, have) = work[0], work[-1]
    return {
        "seconds": time.perf_counter() - begin,
        "first_block_seconds": first,
        "documents_per_second": (have - had) / (last - first),
    }


def compare(
    folder: Path, opener: Callable[[], Any], arguments: argparse.Namespace
) -> dict[str, Any]:
    """One process, then the workers, on the same input."""
    write_input(folder / "in.jsonl", documents=arguments.documents, tokens=arguments.tokens)
    runners: dict[str, Runner] = {"one": run_here, "ray": RayRunner(workers=arguments.workers)}
    results: dict[str, Any] = {}
    for name, runner in runners.items():
        job = BulkJob(
            source=folder / "in.jsonl",
            output=folder / name,
            load=opener,
            ratio=4.0,
            verify=False,
            keep_source=True,
            block_size=arguments.block,
            maker={"encoder": arguments.encoder},
        )
        results[name] = measure(job, runner)
    parts = [sorted((folder / name / "parts").iterdir()) for name in runners]
    results["same_bytes"] = all(
        a.read_bytes() == b.read_bytes() for a, b in itertools.zip_longest(*parts)
    )
    rates = [results[name]["documents_per_second"] for name in runners]
    results["workers_over_one"] = rates[1] / rates[0]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=("engine", "waiting"), default="engine")
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wait", type=float, default=0.05, help="seconds a document")
    arguments = parser.parse_args()
    openers: dict[str, Callable[[], Any]] = {
        "engine": functools.partial(open_engine, threads=1),
        "waiting": functools.partial(Waiting, arguments.wait),
    }
    with tempfile.TemporaryDirectory() as folder:
        results = compare(Path(folder), openers[arguments.encoder], arguments)
    where = {"hardware": hardware(torch.device("cpu")), "load": round(os.getloadavg()[0], 1)}
    json.dump({**vars(arguments), **where, **results}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
