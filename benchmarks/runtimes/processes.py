"""`icae ask` as a process of its own: time to the first answer token, and peak memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.runtimes.measure import REPEATS, Figure, at_most
from benchmarks.runtimes.setting import QUESTION, Setting

from icae.decode.kv_file import store_kv

MIB = 1024**2

CHILD = """
import atexit, json, os, sys
def tell():
    lines = open("/proc/self/status").read().splitlines()
    peak = next(int(l.split()[1]) * 1024 for l in lines if l.startswith("VmHWM"))
    torch = any(name in sys.modules for name in ("torch", "transformers"))
    print(json.dumps({"peak": peak, "torch": torch, "cpu": sum(os.times()[:2])}), file=sys.stderr)
atexit.register(tell)
from icae.cli.app import main
main()
"""


def ask(setting: Setting, *, tokens: int) -> dict[str, Any]:
    """Ask once in a new process.

    Returns:
        ``first``: seconds to the first byte of the answer; ``peak``: bytes; ``torch``:
        whether torch or transformers was imported; ``cpu``: processor seconds.
    """
    command = [sys.executable, "-c", CHILD, "ask", str(setting.memory_file), QUESTION]
    command += ["--runtime", "llamacpp", "--max-new-tokens", str(tokens)]
    start = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ.copy()
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(1)
    first = time.perf_counter() - start
    _, errors = child.communicate()
    if child.returncode != 0:
        raise RuntimeError(errors.decode())
    return {"first": first, **json.loads(errors.splitlines()[-1])}


def start_and_memory(setting: Setting) -> list[Figure]:
    """From the start of a process to the first token of an answer, the memory cached."""
    store_kv(setting.llama, setting.memory, setting.memory_file)
    ask(setting, tokens=1)
    runs = [ask(setting, tokens=1) for _ in range(REPEATS)]
    whole = ask(setting, tokens=setting.sizes.written)
    return [
        at_most(
            "process start to first answer token, memory cached, s",
            statistics.median(run["first"] for run in runs),
            2.5,
            "< 2.5 s, no torch",
            cpu_s=statistics.median(run["cpu"] for run in runs),
            torch_imported=float(any(run["torch"] for run in runs)),
        ),
        at_most(
            "peak memory of icae ask with llama.cpp, MiB",
            max(run["peak"] for run in [*runs, whole]) / MIB,
            600e6 / MIB,
            "< 600 MB",
        ),
    ]
