"""The learned vectors of an adapter that the decoder reads, read without torch.

Shape legend: M objective tokens, D hidden size, P slots, Y layers, H heads, W width of a head.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize

from icae.config import ModelConfig
from icae.config.types import OWN_TOKENS, FloatArray, Objective
from icae.errors import AdapterError


def objective_vectors(folder: str | Path, config: ModelConfig) -> dict[Objective, FloatArray]:
    """The learned vectors [M, D] of each objective, float32, as they are stored.

    Raises:
        AdapterError: If the file is missing or damaged, or holds no such vectors.
    """
    vectors_ND = _own_tensor(Path(folder), "tokens.objective_ND")
    rows = config.objective_rows
    if len(vectors_ND) != len(OWN_TOKENS) * rows:
        raise AdapterError(
            f"The weights in {folder} do not fit its settings.",
            got=f"{len(vectors_ND)} objective vectors",
            expected=f"{len(OWN_TOKENS)} x {rows}",
        )
    return {name: vectors_ND[i * rows : (i + 1) * rows] for i, name in enumerate(OWN_TOKENS)}


def lead_vectors(folder: str | Path, config: ModelConfig) -> FloatArray | None:
    """Keys, as if at position 0, and values of the learned slots before a memory that is asked.

    Float32 [P, Y, 2, H, W] (slots, layers, keys and values, heads, width), or None without; an
    AdapterError as for `objective_vectors`.
    """
    return _own_tensor(Path(folder), "lead_PY2HW") if config.lead_slots else None


def closing_vectors(folder: str | Path, config: ModelConfig) -> FloatArray | None:
    """Objective vectors [M, D] that stand behind a prompt, too, float32, or None without.

    An AdapterError as for `objective_vectors`.
    """
    if config.asking.closing == "nothing":
        return None
    return objective_vectors(folder, config)["ft"][-config.objective_tokens :]


def _own_tensor(folder: Path, name: str) -> FloatArray:
    """A tensor of the weights beside the LoRA as float32, whatever it is stored in."""
    try:
        found = dict(deserialize((folder / "icae.safetensors").read_bytes()))[name]
        data, shape = found["data"], found["shape"]
        if found["dtype"] == "BF16":
            bits = np.frombuffer(data, dtype="<u2").astype(np.uint32)
            return (bits << 16).view(np.float32).reshape(shape)
        return np.frombuffer(data, dtype="<f4").reshape(shape).astype(np.float32)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise AdapterError(f"The adapter {folder} is damaged.", got=str(error)) from error
