"""The adapter folder: PEFT LoRA, `icae.safetensors`, `icae.json` and a model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from icae.config.parsing import to_dict
from icae.errors import AdapterError
from icae.model.adapter_files import (
    FORMAT,
    AdapterInfo,
    adapter_hash,
    read_info,
    require_base,
)
from icae.model.card import model_card
from icae.model.icae import IcaeModel

__all__ = [
    "AdapterInfo",
    "adapter_hash",
    "load_adapter",
    "load_weights",
    "read_info",
    "save_adapter",
]


def save_adapter(model: IcaeModel, info: AdapterInfo, folder: str | Path) -> Path:
    """Write an adapter folder.

    Args:
        model: The trained model.
        info: What to record.
        folder: Target folder; created, files of the same names are replaced.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.lora.save_pretrained(str(folder / "lora"), save_embedding_layers=False)
    (folder / "lora" / "README.md").unlink(missing_ok=True)
    tensors = {f"tokens.{k}": v for k, v in model.tokens.state_dict().items()}
    tensors |= {f"head.{k}": v for k, v in model.head.state_dict().items()}
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
        str(folder / "icae.safetensors"),
    )
    FORMAT.write(folder, info)
    (folder / "README.md").write_text(model_card(to_dict(info)), encoding="utf-8")
    return folder


def load_adapter(
    folder: str | Path, decoder: PreTrainedModel, *, base_model: str, base_hash: str
) -> tuple[IcaeModel, AdapterInfo]:
    """Put an adapter on a base model.

    Args:
        folder: Adapter folder.
        decoder: The loaded base model; frozen, not modified.
        base_model: Its name, for the error message.
        base_hash: Its weight hash.

    Raises:
        AdapterError: If the base is another one, or files are missing or do not fit.
    """
    info = read_info(folder)
    require_base(info, base_model=base_model, base_hash=base_hash)
    model = IcaeModel(decoder, info.model)
    load_weights(model, folder)
    return model, info


def load_weights(
    model: IcaeModel,
    folder: str | Path,
    *,
    adapt: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = dict,
) -> None:
    """Load an adapter's weights into a model of the same architecture, strictly.

    Args:
        model: The model.
        folder: Adapter folder.
        adapt: Changes the weights outside the LoRA (by name) before they are checked.

    Raises:
        AdapterError: If a file is missing or damaged, or a tensor is missing, unknown or
            of another shape.
    """
    folder = Path(folder)
    try:
        lora = load_file(str(folder / "lora" / "adapter_model.safetensors"))
        own = adapt(load_file(str(folder / "icae.safetensors")))
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"The adapter {folder} is damaged.", got=str(error)) from error
    expected = dict(get_peft_model_state_dict(model.lora, save_embedding_layers=False))
    require_same_shapes(folder, lora, expected)
    tokens = {k.removeprefix("tokens."): v for k, v in own.items() if k.startswith("tokens.")}
    head = {k.removeprefix("head."): v for k, v in own.items() if k.startswith("head.")}
    require_same_shapes(folder, tokens, model.tokens.state_dict())
    require_same_shapes(folder, head, model.head.state_dict())
    set_peft_model_state_dict(model.lora, lora)
    model.tokens.load_state_dict(tokens)
    model.head.load_state_dict(head)


def require_same_shapes(
    folder: Path, got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Refuse weights that are not, name by name, those of the model.

    Raises:
        AdapterError: If a tensor is missing, unknown or of another shape.
    """
    shapes_got = {k: tuple(v.shape) for k, v in got.items()}
    shapes_expected = {k: tuple(v.shape) for k, v in expected.items()}
    if shapes_got == shapes_expected:
        return
    names = sorted(set(shapes_got.items()) ^ set(shapes_expected.items()))
    raise AdapterError(
        f"The weights in {folder} do not fit the model.",
        got="; ".join(f"{n} {shapes_got.get(n)}" for n, _ in names[:3]),
        expected="; ".join(f"{n} {shapes_expected.get(n)}" for n, _ in names[:3]),
        fix="Use the same base, rank, slot head and memory embedding as in training.",
    )
