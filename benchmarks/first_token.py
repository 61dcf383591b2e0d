"""First token from a stored memory: key-values against embeddings with their cache (`--kv`).

python benchmarks/first_token.py --adapter smollm2-135m-kv -o docs/results/first-token.json

Both memories are of the same document at 4x, stored in files, and read by torch (or, with
`--runtime llamacpp`, by llama.cpp) in one process, in turn. Seconds are those of the processor
(one thread), so that other work on the machine does not decide. Clocked are

- loaded: the memory is in the process and nothing of it was read; for embeddings the cache
  file beside it is taken, for key-values nothing more is needed;
- from file: the same with loading and checking the memory file;
- again: a second question on the memory;
- process: `icae ask` from its start to the end of one token.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import icae
from icae.config.checkout import commit
from icae.decode.kv_file import load_kv, store_kv
from icae.evals.metadata import hardware
from icae.memory import Memory
from icae.opening import RuntimeName, open_reader

DOCUMENT = Path(__file__).parents[1] / "examples" / "pep-0347.txt"
EMBEDDINGS = "smollm2-135m"
QUESTION = "What is the first step of the migration procedure?"
AGAIN = "Who wrote the proposal?"


class Stored:
    """A memory of one form in a file, and what reads it."""

    def __init__(
        self, adapter: str, text: str, path: Path, *, runtime: RuntimeName, cached: bool
    ) -> None:
        self.path, self.adapter, self.runtime, self.cached = path, adapter, runtime, cached
        engine = icae.load(adapter)
        self.memory = engine.compress(text, ratio=4, verify=False)
        self.memory.save(path)
        self.reader = open_reader(
            adapter, runtime=runtime, load_torch=lambda *given, **named: engine
        )
        if cached:
            store_kv(self.reader, self.memory, path)

    def ask(self, memory: Memory, question: str = QUESTION) -> None:
        """One token of an answer."""
        self.reader.ask(memory, question, max_new_tokens=1)

    def from_loaded(self, memory: Memory) -> None:
        """The first token when nothing was read yet."""
        if self.cached:
            assert load_kv(self.reader, memory, self.path) == "loaded"
        self.ask(memory)

    def seconds(self) -> dict[str, float]:
        """Processor seconds of each way, once."""
        self.reader.decoder.last = None
        memory = Memory.load(self.path)
        found = {"loaded": spent(lambda: self.from_loaded(memory))}
        found["again"] = spent(lambda: self.ask(memory, AGAIN))
        self.reader.decoder.last = None
        found["from file"] = spent(lambda: self.from_loaded(Memory.load(self.path)))
        return found

    def process_seconds(self) -> float:
        """Processor seconds of `icae ask` for one token."""
        command = [sys.executable, "-c", "from icae.cli.app import main; main()", "ask"]
        command += [str(self.path), QUESTION, "--runtime", self.runtime, "--max-new-tokens", "1"]
        command += ["--adapter", self.adapter]
        before = os.times()
        subprocess.run(command, check=True, capture_output=True)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])


def spent(work: Callable[[], None]) -> float:
    """Processor seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure both forms in turn and write medians and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--adapter", default="smollm2-135m-kv")
    parser.add_argument("--runtime", choices=("torch", "llamacpp"), default="torch")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    text = DOCUMENT.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        made = {
            form: Stored(
                adapter,
                text,
                Path(folder, f"{form}.icae"),
                runtime=options.runtime,
                cached=form == "embeddings",
            )
            for form, adapter in (("embeddings", EMBEDDINGS), ("key-values", options.adapter))
        }
        runs: dict[str, list[dict[str, float]]] = {form: [] for form in made}
        for stored in made.values():
            stored.seconds()
        for _ in range(options.repeats):
            for form, stored in made.items():
                runs[form].append(stored.seconds())
        for turn in range(options.processes):
            for form, stored in made.items():
                runs[form][turn]["process"] = stored.process_seconds()
        tokens = made["key-values"].memory.tokens
        slots = {form: stored.memory.slot_count for form, stored in made.items()}
        bytes_ = {form: stored.path.stat().st_size for form, stored in made.items()}
    figures = {}
    for way in ("loaded", "again", "from file", "process"):
        both = {
            form: statistics.median(run[way] for run in found if way in run)
            for form, found in runs.items()
        }
        figures[way] = {**both, "ratio": both["key-values"] / both["embeddings"]}
        print(way, {name: round(value, 4) for name, value in figures[way].items()}, flush=True)
    record = {
        "commit": commit(),
        "hardware": hardware(torch.device("cpu")),
        "runtime": {form: stored.reader.decoder.name for form, stored in made.items()},
        "tokens": tokens,
        "slots": slots,
        "file_bytes": bytes_,
        "processor_seconds": figures,
    }
    print(json.dumps({key: record[key] for key in ("tokens", "slots", "file_bytes")}))
    if options.output is not None:
        options.output.write_text(f"{json.dumps(record, indent=1)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
