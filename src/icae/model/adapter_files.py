"""What an adapter folder records, read without torch: its settings, hash and objectives."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from icae.config import ModelConfig
from icae.config.types import OBJECTIVES, FloatArray, Objective
from icae.errors import AdapterError
from icae.model.folder_record import RecordFormat, TrainedInfo

RECORD = "icae.json"
WEIGHTS = ("lora/adapter_model.safetensors", "icae.safetensors")
FORMAT = RecordFormat(name="icae-adapter", version=1, file=RECORD, what="an icae adapter")


DEFAULT_ADAPTER = "smollm2-135m"
"""Name of the adapter folder shipped in the package."""


def default_adapter() -> Path:
    """Folder of the adapter shipped in the package."""
    return Path(str(resources.files("icae") / "adapters" / DEFAULT_ADAPTER))


@dataclass(frozen=True, kw_only=True)
class AdapterInfo(TrainedInfo):
    """What `icae.json` records.

    Attributes:
        model: Architecture.
        ratios: Compression ratios it was trained at.
    """

    model: ModelConfig
    ratios: tuple[float, ...] = (4.0,)


def read_info(folder: str | Path) -> AdapterInfo:
    """Read `icae.json` of an adapter folder.

    Raises:
        AdapterError: If the folder is not an adapter, or of another version.
    """
    folder = Path(folder)
    return FORMAT.read(
        AdapterInfo,
        folder,
        missing=lambda error: AdapterError(
            f"{folder} is not an adapter folder.",
            got=str(error),
            expected="a folder with icae.json, icae.safetensors and lora/",
            fix=_where_from(folder),
        ),
    )


def _where_from(folder: Path) -> str:
    if (folder / "reader.json").is_file():
        return "This is a reader of the full context: it goes to `icae eval qa --upper-bound`."
    if (folder / "rival.json").is_file():
        return "This is a trained rival: it goes to `icae eval rivals --trained`."
    return "Give the folder that `icae pretrain` wrote."


def adapter_hash(folder: str | Path) -> str:
    """SHA-256 over the adapter's weights and architecture; what a memory is keyed by.

    The architecture counts as it was written, so that settings added later, at their
    defaults, leave old adapters and their memories what they were.
    """
    folder = Path(folder)
    read_info(folder)
    architecture = json.loads((folder / RECORD).read_text(encoding="utf-8"))["model"]
    digest = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    for part in WEIGHTS:
        try:
            digest.update((folder / part).read_bytes())
        except OSError as error:
            raise AdapterError(f"The adapter {folder} is damaged.", got=str(error)) from error
    return digest.hexdigest()


def require_base(info: AdapterInfo, *, base_model: str, base_hash: str) -> None:
    """Refuse a base model that the adapter was not trained on.

    Args:
        info: The adapter.
        base_model: Name of the base, for the message.
        base_hash: Its weight hash.

    Raises:
        AdapterError: If it is another one.
    """
    if info.base_hash != base_hash:
        raise AdapterError(
            "The adapter was trained on another base model.",
            got=f"base {base_model} (weights {base_hash[:12]})",
            expected=f"base {info.base_model} (weights {info.base_hash[:12]})",
            fix=f"Load {info.base_model}, or train an adapter for {base_model}.",
        )


def objective_vectors(folder: str | Path, config: ModelConfig) -> dict[Objective, FloatArray]:
    """The learned vectors of the objective tokens, as they are stored.

    Args:
        folder: Adapter folder.
        config: Its architecture.

    Returns:
        Vectors [M, D] of each objective, float32.

    Raises:
        AdapterError: If the file is missing or damaged, or holds no such vectors.
    """
    path = Path(folder) / "icae.safetensors"
    try:
        with safe_open(str(path), framework="numpy") as tensors:
            vectors_ND = tensors.get_tensor("tokens.objective_ND").astype(np.float32)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"The adapter {folder} is damaged.", got=str(error)) from error
    rows = config.objective_tokens
    if len(vectors_ND) != len(OBJECTIVES) * rows:
        raise AdapterError(
            f"The weights in {folder} do not fit its settings.",
            got=f"{len(vectors_ND)} objective vectors",
            expected=f"{len(OBJECTIVES)} x {rows}",
        )
    return {name: vectors_ND[i * rows : (i + 1) * rows] for i, name in enumerate(OBJECTIVES)}
