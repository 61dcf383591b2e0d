"""The folder of a trained rival: a standard PEFT adapter, its own vectors, `rival.json`, a card.

A rival (GIST, AutoCompressor) is trained to be compared with; nothing but the evaluation
reads it. It is never taken for an adapter of icae, nor the other way round.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.parsing import to_dict
from icae.config.types import RivalMethod
from icae.errors import AdapterError
from icae.model.adapter import require_same_shapes
from icae.model.autocompressor import AutoCompressor
from icae.model.card import list_figures, list_sources
from icae.model.folder_record import RecordFormat, TrainedInfo
from icae.model.gist import GistModel

RECORD = "rival.json"
FORMAT = RecordFormat(name="icae-rival", version=1, file=RECORD, what="a trained rival")
LORA = "adapter_model.safetensors"
VECTORS = "rival.safetensors"

RivalModel = GistModel | AutoCompressor
"""A model that is trained to be compared with."""

RIVAL_MODELS: Mapping[RivalMethod, type[GistModel] | type[AutoCompressor]] = {
    "gist": GistModel,
    "autocompressor": AutoCompressor,
}
"""Method -> its model."""

TITLES: Mapping[RivalMethod, str] = {"gist": "GIST", "autocompressor": "AutoCompressor"}
"""Method -> its name in tables."""


@dataclass(frozen=True, kw_only=True)
class RivalInfo(TrainedInfo):
    """What `rival.json` records.

    Attributes:
        method: Which rival it is.
        model: Architecture.
        ratios: Compression ratios it was trained at.
    """

    method: RivalMethod
    model: ModelConfig
    ratios: tuple[float, ...] = (4.0,)


def save_rival(model: RivalModel, info: RivalInfo, folder: str | Path) -> Path:
    """Write the folder of a rival.

    Args:
        model: The trained rival.
        info: What to record.
        folder: Target folder; created, files of the same names are replaced.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.lora.save_pretrained(str(folder), save_embedding_layers=False)
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in _vectors(model).items()},
        str(folder / VECTORS),
    )
    FORMAT.write(folder, info)
    (folder / "README.md").write_text(_card(info), encoding="utf-8")
    return folder


def _vectors(model: RivalModel) -> dict[str, torch.Tensor]:
    """The weights outside the LoRA by name."""
    tokens = {f"tokens.{name}": value for name, value in model.tokens.state_dict().items()}
    return tokens | {f"head.{name}": value for name, value in model.fixed_state().items()}


def load_rival(
    folder: str | Path, decoder: PreTrainedModel, *, base_model: str, base_hash: str
) -> tuple[RivalModel, RivalInfo]:
    """Put a rival on a base model.

    Args:
        folder: Its folder.
        decoder: The loaded base model; frozen, not modified.
        base_model: Its name, for the error message.
        base_hash: Its weight hash.

    Raises:
        AdapterError: If the folder is something else, the base another one, or files are
            missing or do not fit.
    """
    info = read_rival_info(folder)
    if info.base_hash != base_hash:
        raise AdapterError(
            f"{TITLES[info.method]} in {folder} was trained on another base model.",
            got=f"base {base_model} (weights {base_hash[:12]})",
            expected=f"base {info.base_model} (weights {info.base_hash[:12]})",
            fix=f"Train one for {base_model} (objective.reader: {info.method}).",
        )
    model = RIVAL_MODELS[info.method](decoder, info.model)
    load_rival_weights(model, folder)
    return model.eval(), info


def load_rival_weights(model: RivalModel, folder: str | Path) -> None:
    """Load the weights of a rival into a model of the same architecture, strictly.

    Raises:
        AdapterError: If a file is missing or damaged, or a tensor is missing, unknown or of
            another shape.
    """
    folder = Path(folder)
    try:
        lora, vectors = load_file(str(folder / LORA)), load_file(str(folder / VECTORS))
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"The rival {folder} is damaged.", got=str(error)) from error
    expected = dict(get_peft_model_state_dict(model.lora, save_embedding_layers=False))
    require_same_shapes(folder, lora, expected)
    require_same_shapes(folder, vectors, _vectors(model))
    set_peft_model_state_dict(model.lora, lora)
    parts: dict[str, dict[str, torch.Tensor]] = {"tokens": {}, "head": {}}
    for name, value in vectors.items():
        part, _, own = name.partition(".")
        parts[part][own] = value
    model.tokens.load_state_dict(parts["tokens"])
    model.load_fixed_state(parts["head"])


def read_rival_info(folder: str | Path) -> RivalInfo:
    """Read `rival.json`.

    Raises:
        AdapterError: If the folder is not that of a rival.
    """
    return FORMAT.read(
        RivalInfo,
        Path(folder),
        missing=lambda error: AdapterError(
            f"{folder} is not the folder of a trained rival.",
            got=str(error),
            expected=f"a folder with {RECORD}, {LORA} and {VECTORS}",
            fix="Give the folder that a run with objective.reader: "
            f"{' or '.join(RIVAL_MODELS)} wrote; an adapter of icae goes to --adapter.",
        ),
    )


def rival_hash(folder: str | Path) -> str:
    """SHA-256 over the weights of a rival and its architecture.

    Raises:
        AdapterError: If the folder cannot be read.
    """
    info = read_rival_info(folder)
    shape = [info.method, to_dict(info.model)]
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for part in (LORA, VECTORS):
        try:
            digest.update((Path(folder) / part).read_bytes())
        except OSError as error:
            raise AdapterError(f"The rival {folder} is damaged.", got=str(error)) from error
    return digest.hexdigest()


def _card(info: RivalInfo) -> str:
    title = TITLES[info.method]
    lines = [
        "---",
        "license: apache-2.0",
        "library_name: peft",
        f"base_model: {info.base_model}",
        "tags: [context-compression, lora, baseline]",
        "---",
        f"# {info.name}",
        "",
        f"{title} for `{info.base_model}` with a frozen decoder: a rival of the in-context "
        "autoencoder, trained to be compared with it (`icae eval rivals --trained`). It is no "
        "adapter of icae.",
        "",
        str(info.recipe.get("description", "")).strip(),
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in sorted(to_dict(info.model).items())),
        f"| ratios trained | {', '.join(f'{r:g}x' for r in info.ratios)} |",
        f"| base weights (sha256) | `{info.base_hash[:16]}` |",
        f"| tokenizer (sha256) | `{info.tokenizer_hash[:16]}` |",
        f"| code | `{info.commit or 'unknown'}` |",
        "",
        "## Measured",
        "",
        *list_figures(info.metrics),
        "",
        "## Training data",
        "",
        *list_sources(info.data),
        "",
    ]
    return "\n".join(lines)
