"""Every figure of the runtimes, as ratios within one run; `make bench`.

python -m benchmarks.runtimes -o docs/results/bench [--quick | --full]

Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import llama_cpp
import torch
from benchmarks.runtimes import parity, processes, scaling, speed
from benchmarks.runtimes.measure import REPEATS
from benchmarks.runtimes.report import write_report
from benchmarks.runtimes.setting import FULL, QUICK, Setting, Sizes

from icae.decode import batching
from icae.decode.devices import pick_dtype
from icae.evals.metadata import hardware


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtimes", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="larger sizes; about 25 minutes")
    size.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL if arguments.full else Sizes()
    # A batch of whole documents has to stay one batch, or its rate is not that of the batch.
    batching.POSITIONS_PER_BATCH = max(
        batching.POSITIONS_PER_BATCH, 2 * sizes.batch * sizes.document
    )
    device = torch.device("cpu")
    dtype = str(pick_dtype(None, device)).removeprefix("torch.")
    run = {
        "command": "python -m benchmarks.runtimes " + " ".join(sys.argv[1:]),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "versions": f"llama-cpp-python {llama_cpp.__version__}, Python {platform.python_version()}",
        "repeats": REPEATS,
        "load": f"{os.getloadavg()[0]:.1f}",
        "sizes": asdict(sizes),
    }
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(sizes, Path(folder), dtype)
        figures = [
            speed.encode_throughput(setting),
            *speed.first_token(setting, "torch"),
            *speed.first_token(setting, "llamacpp"),
            *speed.decoding(setting),
            speed.batch_decoding(setting, "torch"),
            speed.batch_decoding(setting, "llamacpp"),
            *processes.start_and_memory(setting),
        ]
        tables = {
            "parity": parity.ask_both(setting),
            "questions": scaling.questions(setting),
            "long": scaling.long_documents(setting),
            "latency": scaling.latency(setting),
        }
    run["seconds"] = round(time.perf_counter() - start, 1)
    write_report(arguments.output, figures, tables, run)


if __name__ == "__main__":
    main()
