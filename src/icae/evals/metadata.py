"""What made a result: code, model, data, machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import icae
from icae.config.checkout import commit
from icae.data.corpus import list_corpus
from icae.data.rows import file_hash
from icae.engine import Engine
from icae.evals.bootstrap import LEVEL, RESAMPLES

SCHEMA = 1
"""Version of the result files."""


def result_head(
    name: str,
    title: str,
    made: Mapping[str, Any],
    seed: int,
    settings: Mapping[str, Any],
    over: str,
) -> dict[str, Any]:
    """How a result file begins: what made it, of what.

    Args:
        name: Name of the experiment.
        title: Its headline.
        made: The model or judge behind it, and the data.
        seed: Seed of draw and bootstrap.
        settings: What must be equal for results to be comparable.
        over: What the bootstrap draws.
    """
    return {
        "schema": SCHEMA,
        "experiment": name,
        "title": title,
        "icae": icae.__version__,
        "commit": commit(),
        **made,
        "seed": seed,
        "settings": settings,
        "intervals": f"{LEVEL:.0%} percentile bootstrap over {over}, {RESAMPLES} resamples",
    }


def data_hashes(texts: Sequence[Path]) -> list[dict[str, str | None]]:
    """Name and SHA-256 of every corpus file behind some texts.

    Raises:
        InputError: If one is not a corpus.
    """
    return [{"file": file.name, "sha256": file_hash(file)} for file in list_corpus(texts)]


def model_record(engine: Engine) -> dict[str, Any]:
    """Names and hashes of adapter, base and tokenizer, and the precision of the weights."""
    made = engine.provenance
    return {
        "adapter": {"name": made.adapter, "hash": made.adapter_hash},
        "base": {"name": made.base_model, "hash": made.base_hash},
        "tokenizer": {"hash": made.tokenizer_hash},
        "dtype": str(engine.runtime.model.dtype).removeprefix("torch."),
    }


def hardware(device: torch.device) -> str:
    """The machine in words: processor, threads, accelerator, torch version."""
    parts = [f"{_processor()}, {torch.get_num_threads()} threads"]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    elif device.type != "cpu":
        parts.append(device.type)
    return "; ".join([*parts, f"torch {torch.__version__}"])


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
