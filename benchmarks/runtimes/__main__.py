"""Every figure of the runtimes, as ratios within one run; `make bench`.

python -m benchmarks.runtimes -o docs/results/bench [--only NAME ...] [--clock cpu]
    [--quick | --full]

Run it on an idle machine. On a busy one ``--clock cpu`` with one thread gives orientation: it
counts processor seconds, which other processes take no part of.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from benchmarks.runtimes import parity, processes, scaling, speed
from benchmarks.runtimes.measure import Figure, Timer
from benchmarks.runtimes.report import write_report
from benchmarks.runtimes.setting import FULL, QUICK, Setting, Sizes

from icae.decode import batching
from icae.decode.devices import pick_dtype
from icae.evals.metadata import hardware

FIGURES: dict[str, Callable[[Setting, Timer], list[Figure]]] = {
    "encode": lambda setting, timer: [speed.encode_throughput(setting, timer)],
    "first-token": lambda setting, timer: [
        *speed.first_token(setting, timer, "torch"),
        *speed.first_token(setting, timer, "llamacpp"),
    ],
    "decode": speed.decoding,
    "batch": lambda setting, timer: [
        speed.batch_decoding(setting, "torch"),
        speed.batch_decoding(setting, "llamacpp"),
    ],
    "process": processes.start_and_memory,
}
TABLES: dict[str, Callable[[Setting, Timer], dict[str, Any]]] = {
    "parity": lambda setting, timer: parity.ask_both(setting),
    "questions": scaling.questions,
    "latency": scaling.latency,
    "long": scaling.long_documents,
}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtimes", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=[*FIGURES, *TABLES], help="measure only these")
    parser.add_argument("--repeats", type=int, default=5, help="repeats (default 5)")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="default wall")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="larger sizes; about 25 minutes")
    size.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="of torch")
    return parser.parse_args()


def main() -> None:
    """Measure, print progress to standard error, write the report."""
    arguments = parse_arguments()
    sizes = QUICK if arguments.quick else FULL if arguments.full else Sizes()
    # A batch of whole documents has to stay one batch, or its rate is not that of the batch.
    batching.POSITIONS_PER_BATCH = max(
        batching.POSITIONS_PER_BATCH, 2 * sizes.batch * sizes.document
    )
    device = torch.device("cpu")
    dtype = arguments.dtype or str(pick_dtype(None, device)).removeprefix("torch.")
    timer = Timer(clock=arguments.clock, repeats=arguments.repeats)
    import llama_cpp

    run = {
        "command": "python -m benchmarks.runtimes " + " ".join(sys.argv[1:]),
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "versions": f"llama-cpp-python {llama_cpp.__version__}, Python {platform.python_version()}",
        "clock": timer.clock,
        "repeats": timer.repeats,
        "load": f"{os.getloadavg()[0]:.1f}",
        "sizes": asdict(sizes),
    }
    wanted = arguments.only or [*FIGURES, *TABLES]
    figures: list[Figure] = []
    tables: dict[str, Any] = {}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(sizes, Path(folder), dtype)
        for name in wanted:
            if name in FIGURES:
                figures += FIGURES[name](setting, timer)
            else:
                tables[name] = TABLES[name](setting, timer)
            print(f"{name}: done after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    run["seconds"] = round(time.perf_counter() - start, 1)
    write_report(arguments.output, figures, tables, run)
    for figure in figures:
        print(f"{figure.name}: {figure.value:.3g} (reach {figure.reach})")


if __name__ == "__main__":
    main()
