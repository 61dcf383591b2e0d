"""Saving and loading trained models; what their folders hold: `icae.model.adapter_files`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.config.types import MemoryForm, Method
from icae.errors import AdapterError
from icae.model.adapted_decoder import AdaptedDecoder
from icae.model.adapter_files import KINDS, AdapterInfo, require_base, write_info
from icae.model.autocompressor import AutoCompressor
from icae.model.base import computation_hash
from icae.model.base_files import public_name
from icae.model.card import model_card
from icae.model.full_context import FullContextModel
from icae.model.gist import GistModel
from icae.model.icae import IcaeModel
from icae.model.key_values import KeyValueModel
from icae.model.memory_model import MemoryModel

Model = TypeVar("Model", bound=AdaptedDecoder)

FORMS: Mapping[MemoryForm, type[MemoryModel[Any, Any]]] = {
    "embeddings": IcaeModel,
    "key-values": KeyValueModel,
}
"""What each form of memory is made and read by."""

RIVALS: Mapping[Method, type[AdaptedDecoder]] = {
    "full-context": FullContextModel,
    "gist": GistModel,
    "autocompressor": AutoCompressor,
}
"""What each other method of training trains."""


def model_class(config: ModelConfig, method: Method = "memory") -> type[AdaptedDecoder]:
    """What a method trains with settings."""
    return FORMS[config.memory] if method == "memory" else RIVALS[method]


def save_adapter(model: AdaptedDecoder, info: AdapterInfo, folder: str | Path) -> Path:
    """Write the folder of a trained model, of the kind of its method; files there are replaced."""
    folder, kind = Path(folder), KINDS[info.method]
    folder.mkdir(parents=True, exist_ok=True)
    model.lora.save_pretrained(str(folder / kind.lora), save_embedding_layers=False)
    (folder / kind.lora / "README.md").unlink(missing_ok=True)
    _name_base(folder / kind.lora / "adapter_config.json", info.base_model)
    if kind.vectors is not None:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in model.own_state().items()},
            str(folder / kind.vectors),
        )
    write_info(info, folder)
    (folder / "README.md").write_text(model_card(info), encoding="utf-8")
    for part in kind.weights:  # safetensors writes files that others cannot read
        (folder / part).chmod(0o666 & ~_umask())
    return folder


def _name_base(settings: Path, base: str) -> None:
    """Let PEFT's settings name the base by its id, not by where it lies here, and in order."""
    written = json.loads(settings.read_text(encoding="utf-8"))
    written["base_model_name_or_path"] = public_name(base)
    if isinstance(written["target_modules"], list):
        written["target_modules"].sort()
    settings.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _umask() -> int:
    """Permissions that new files lack; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_trained(
    make: type[Model],
    info: AdapterInfo,
    folder: str | Path,
    decoder: PreTrainedModel,
    *,
    base_model: str,
    base_hash: str,
) -> Model:
    """Put a trained model on a frozen base model, in eval mode.

    Raises:
        AdapterError: If the base is another one, or files are missing or do not fit.
    """
    settings = computation_hash(decoder.config)
    require_base(info, base_model=base_model, base_hash=base_hash, settings=settings)
    model = make(decoder, info.model)
    load_weights(model, folder, method=info.method)
    return model.eval()


def load_weights(model: AdaptedDecoder, folder: str | Path, *, method: Method = "memory") -> None:
    """Load the weights of a folder into a model of the same architecture, strictly.

    An AdapterError for a file that is missing or damaged, and for a tensor that is missing, unknown
    or of another shape.
    """
    folder, own = Path(folder), model.own_state()
    try:
        lora, *rest = (load_file(str(folder / part)) for part in KINDS[method].weights)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"The weights in {folder} are damaged.", got=str(error)) from error
    vectors = rest[0] if rest else {}
    expected = dict(get_peft_model_state_dict(model.lora, save_embedding_layers=False))
    require_shapes(
        {**lora, **vectors},
        {**expected, **own},
        message=f"The weights in {folder} do not fit the model.",
        fix="Use the same base, rank, slot head and memory embedding as in training.",
    )
    set_peft_model_state_dict(model.lora, lora)
    with torch.no_grad():
        for name, tensor in vectors.items():
            own[name].copy_(tensor)


def require_shapes(
    got: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    *,
    message: str,
    fix: str,
) -> None:
    """An AdapterError for weights that are not, name by name, those of a model."""
    found, wanted = ({name: tuple(t.shape) for name, t in own.items()} for own in (got, expected))
    names = sorted({name for name, _ in found.items() ^ wanted.items()})[:3]
    if names:
        raise AdapterError(
            message,
            got="; ".join(f"{name} {found.get(name)}" for name in names),
            expected="; ".join(f"{name} {wanted.get(name)}" for name in names),
            fix=fix,
        )
